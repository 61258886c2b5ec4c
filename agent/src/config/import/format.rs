//! The formats of other tools' files, and where those are.

/// The format of the files that are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// Files ifcfg-NAME of Red Hat's and SUSE's network scripts
    Ifcfg,
    /// Words bond= of the kernel's command line, as dracut reads them
    Dracut,
    /// Stanzas of interfaces(5), as Debian's ifupdown reads them
    Interfaces,
}

impl Format {
    /// Its name on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Format::Ifcfg => "ifcfg",
            Format::Dracut => "dracut",
            Format::Interfaces => "interfaces",
        }
    }

    /// The default paths.
    pub(super) fn usual(self) -> &'static [&'static str] {
        match self {
            Format::Ifcfg => &["/etc/sysconfig/network-scripts", "/etc/sysconfig/network"],
            Format::Dracut => &["/proc/cmdline"],
            Format::Interfaces => &["/etc/network/interfaces"],
        }
    }

    /// The expected kind of file, for messages.
    pub(super) fn expected(self) -> &'static str {
        match self {
            Format::Ifcfg => "a file ifcfg-NAME or a folder of them",
            Format::Dracut => "a file with bond= in the words of a kernel's command line",
            Format::Interfaces => "a file with iface stanzas",
        }
    }
}
