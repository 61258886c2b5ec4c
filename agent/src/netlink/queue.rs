//! Transmit queues of an interface.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rtnetlink::LinkVeth;
use rtnetlink::packet_route::link::LinkAttribute;

use super::link::RouteSocket;
use super::message::Link;
use crate::apart::apart;

impl RouteSocket {
    /// Makes a veth pair, both ends down. The first end can have this number of transmit queues; the number in use at first
    /// differs between kernels.
    pub fn add_veth_with_queues(&mut self, name: &str, peer: &str, queues: u32) -> io::Result<()> {
        let wide = LinkAttribute::NumTxQueues(queues);
        let pair = LinkVeth::new(name, peer).append_extra_attribute(wide).build();
        let made = self.ask(|handle| handle.link().add(pair).execute());
        self.done_or_found(made, |links| links.is_of_kind(name, "veth"))
    }

    /// Sets the number of transmit queues in use, and one receive queue.
    pub fn set_tx_queues(&mut self, name: &str, count: u32) -> io::Result<()> {
        self.ask_ethtool(|handle| handle.channel().set(name).rx_count(1).tx_count(count).execute())
    }
}

/// Sends the frames of every CPU through the first transmit queue, except those assigned to another queue. (XPS)
///
/// There is no netlink call for this, and a sysfs shows the network namespace in which it was mounted, which may be another
/// one. `witness`, an interface of ours with a unique address, shows whether the sysfs is the right one. If it is not, a new
/// sysfs is mounted in a private mount namespace, which needs CAP_SYS_ADMIN.
pub fn tie_to_first_queue(name: &str, witness: &Link) -> io::Result<()> {
    let mask = mask_of(aya::util::nr_cpus().map_err(|(_, error)| error)?);
    let tie = || fs::write(interface(name).join("queues/tx-0/xps_cpus"), &mask);
    let shown = fs::read_to_string(interface(&witness.report.name).join("address"));
    if shown.is_ok_and(|mac| mac.trim() == witness.report.mac.to_string()) {
        match tie() {
            // Containers often have a read-only sysfs.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EROFS | libc::EACCES)) => {}
            done => return done,
        }
    }
    in_own_sysfs(tie)
}

fn interface(name: &str) -> PathBuf {
    Path::new("/sys/class/net").join(name)
}

/// The mask of this number of CPUs in the kernel's format: words of 32 bits, the highest first.
pub(crate) fn mask_of(cpus: usize) -> String {
    let words = (0..cpus.div_ceil(32)).rev().map(|word| match cpus - word * 32 {
        32.. => "ffffffff".to_owned(),
        rest => format!("{:x}", (1u32 << rest) - 1),
    });
    words.collect::<Vec<_>>().join(",")
}

/// Runs `work` where `/sys` shows the network namespace of the calling thread.
pub(crate) fn in_own_sysfs(work: impl Fn() -> io::Result<()> + Sync) -> io::Result<()> {
    let mounted = || {
        unshare(CloneFlags::CLONE_FS | CloneFlags::CLONE_NEWNS)?;
        let private = MsFlags::MS_PRIVATE | MsFlags::MS_REC;
        mount(None::<&str>, "/", None::<&str>, private, None::<&str>)?;
        mount(Some("sysfs"), "/sys", Some("sysfs"), MsFlags::empty(), None::<&str>)?;
        work()
    };
    apart(mounted)?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::apart::tests::refused;
    use crate::netlink::tests::in_netns;

    #[test]
    fn a_mask_has_a_bit_for_every_cpu() {
        let masks = [1, 2, 4, 31, 32, 33, 64, 70].map(mask_of);
        let expected = [
            "1",
            "3",
            "f",
            "7fffffff",
            "ffffffff",
            "1,ffffffff",
            "ffffffff,ffffffff",
            "3f,ffffffff,ffffffff",
        ];
        assert_eq!(masks, expected);
    }

    #[test]
    fn without_a_thread_no_sysfs_is_mounted() {
        let error = refused(|| in_own_sysfs(|| panic!("it is not run"))).unwrap_err();
        assert!(error.to_string().starts_with("no thread can be made ("), "{error}");
    }

    #[test]
    fn queues_come_and_go_and_the_first_one_gets_all_cpus() {
        in_netns(|| {
            let mut links = RouteSocket::open().unwrap();
            links.add_veth_with_queues("a", "b", 16).unwrap();
            let queue = |number| interface("a").join(format!("queues/tx-{number}/xps_cpus"));
            for count in [1, 16, 1, 16] {
                links.set_tx_queues("a", count).unwrap();
                let last_one = || match (queue(count - 1).exists(), queue(count).exists()) {
                    (true, false) => Ok(()),
                    other => Err(io::Error::other(format!("{other:?}"))),
                };
                in_own_sysfs(last_one).unwrap();
            }
            assert_eq!(links.by_name("a").unwrap().unwrap().tx_queues, 16);
            let witness = links.by_name("b").unwrap().unwrap();
            tie_to_first_queue("a", &witness).unwrap();
            let all = || match fs::read_to_string(queue(0))?.trim() {
                mask if mask.bytes().all(|digit| digit != b'0') => Ok(()),
                other => Err(io::Error::other(other.to_owned())),
            };
            in_own_sysfs(all).unwrap();
            tie_to_first_queue("nosuch", &witness).unwrap_err();
            assert_eq!(
                links.set_tx_queues("a", 17).unwrap_err().raw_os_error(),
                Some(libc::EINVAL)
            );
        });
    }
}
