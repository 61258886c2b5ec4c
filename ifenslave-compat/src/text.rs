//! Help and version texts of `ifenslave`.

/// Printed by `-v` and `-V`. The first line is what scripts look for; the four below were credits.
pub(crate) const BANNER: &str = concat!(
    "ifenslave.c:v1.1.0 (December 1, 2003)\n",
    "o Command line and exit codes are those of this release.\n",
    "o The work is done by bondd, the bonding agent.\n",
    "o This program is part of bondd ",
    env!("CARGO_PKG_VERSION"),
    ";\n  it needs no bonding driver in the kernel.\n",
);

/// Printed after wrong usage, and by `-u`.
pub(crate) const USAGE: &str = "\
Usage: ifenslave [-f] <master-if> <slave-if> [<slave-if>...]
       ifenslave -d   <master-if> <slave-if> [<slave-if>...]
       ifenslave -c   <master-if> <slave-if>
       ifenslave --help
";

/// Printed by `-h` after the usage.
pub(crate) const HELP: &str = "
Attaches network interfaces (slaves) to a bond (master) of the agent bondd,
detaches them, or chooses the one that carries the traffic.

  ifenslave <master-if> <slave-if>...
      Attach the slaves. Each is set down, loses its IPv4 addresses, and gets
      the master's MTU and MAC address; bondd sets it up again and uses it as
      soon as its link is good.
  ifenslave -d, --detach <master-if> <slave-if>...
      Detach the slaves. Each gets its own MTU and MAC address back.
  ifenslave -c, --change-active <master-if> <slave-if>
      Make this slave the active one.
  ifenslave <master-if>
      Show flags, IPv4 address and hardware address of the master.
  ifenslave -a, --all-interfaces
      Show the same for every interface with an IPv4 address.

  -f, --force      attach to a master that is not Ethernet
  -v, --verbose    say on standard error what is done
  -V, --version    print the version
  -u, --usage      print the usage
  -h, --help       print this

Only one of -a -c -d -f -h -u -V can be given. Names of options may be
abbreviated.

Environment:
  BONDD_RUN_DIR    the run directory of bondd, if it is not /run/bondd
  BONDD_IFENSLAVE  debian: command line and exit codes are those of the shell
                   command that Debian had from 2013 to 2018; 1.1.0: these here,
                   as without it

Exit status:
  0    done
  1    refused, or no bondd answers
  2    wrong usage
  255  a setting of an interface could not be read (-c, -d) or changed
  else the errno with which settings of an interface could not be read
Every slave is tried; the last one that fails decides.

Examples:
  bondctl add bond0 mode active-backup
  ip addr add 192.0.2.10/24 dev bond0
  ip link set bond0 up
  ifenslave bond0 eth0 eth1
  ifenslave -c bond0 eth1
  ifenslave -d bond0 eth0
";

/// Printed by the Debian form's `-V`.
pub(crate) const DEBIAN_VERSION: &str = concat!(
    "ifenslave 2.9 of Debian: command line and exit codes; part of bondd ",
    env!("CARGO_PKG_VERSION"),
    "\nLicense: ",
    env!("CARGO_PKG_LICENSE"),
    "\n"
);

/// Printed by the Debian form's `-u`.
pub(crate) const DEBIAN_USAGE: &str = "\
Usage: ifenslave [-c | -d] [-f] [-v] <master> <slave>... | -a | -h | -u | -V
";

/// Printed by the Debian form's `-h`.
pub(crate) const DEBIAN_HELP: &str = "\
Attaches network interfaces (slaves) to a bond (master) of the agent bondd,
detaches them, or chooses the one that carries the traffic.

  ifenslave <master> <slave>...
      Attach the slaves. The master may be down. Each slave is set down first
      and keeps its addresses. One that is attached already is skipped.
  ifenslave -d, --detach <master> <slave>...
      Detach the slaves. One that is not attached is skipped.
  ifenslave -c, --change-active <master> <slave>
      Make this slave the active one.
  ifenslave -a, --all-interfaces
      Show what ip link shows.

  -f, --force      attach a slave that is not Ethernet, too
  -v, --verbose    say on standard error what is done
  -V, --version    print the version
  -u, --usage      print the usage
  -h, --help       print this

Options come first, each on its own. BONDD_RUN_DIR names the run directory of
bondd, if it is not /run/bondd; BONDD_IFENSLAVE=debian chose this form, see
ifenslave(8).

Exit status:
  0  done
  1  refused, not enough arguments, or no bondd answers
  2  a slave cannot be set down
The first slave that fails ends it.
";
