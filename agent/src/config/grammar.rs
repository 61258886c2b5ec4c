//! Grammars of option files.

use std::path::Path;

/// The rules by which a file is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Grammar {
    /// The agent's own, with the names that the file says
    #[value(name = "bondd")]
    Own,
    /// That of Linux 2.4, as modutils reads it
    #[value(name = "modules.conf")]
    ModulesConf,
    /// That of today, as kmod reads it
    #[value(name = "modprobe.d")]
    ModprobeD,
    /// The kernel's command line, which counts after the files of modprobe.d
    #[value(skip)]
    CommandLine,
}

impl Grammar {
    /// The grammar for a file's name and folder.
    pub fn of(path: &Path) -> Grammar {
        let is = |part: Option<&std::ffi::OsStr>, name: &str| part.is_some_and(|part| part == name);
        let (name, folder) = (path.file_name(), path.parent().and_then(Path::file_name));
        if is(name, "modules.conf") || is(name, "conf.modules") {
            Grammar::ModulesConf
        } else if is(name, "modprobe.conf") || is(folder, "modprobe.d") {
            Grammar::ModprobeD
        } else {
            Grammar::Own
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_as_its_name_and_folder_say() {
        for (path, grammar) in [
            ("/etc/modules.conf", Grammar::ModulesConf),
            ("conf.modules", Grammar::ModulesConf),
            ("/etc/modprobe.conf", Grammar::ModprobeD),
            ("/run/modprobe.d/x.conf", Grammar::ModprobeD),
            ("/etc/bondd/x.conf", Grammar::Own),
            ("/etc/modprobe.d/y/x.conf", Grammar::Own),
        ] {
            assert_eq!(Grammar::of(Path::new(path)), grammar, "{path}");
        }
    }
}
