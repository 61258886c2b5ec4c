//! Types whose values have a name and a number in the kernel's driver.

macro_rules! named {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $text:literal $number:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $($(#[$vdoc])* #[serde(rename = $text)] $variant,)+
        }

        // A value may be there in some builds only, and documentation comes along with such a condition.
        #[allow(unused_doc_comments)]
        impl $name {
            /// Every value with its name and its number in the kernel's driver.
            pub const VALUES: &'static [($name, &'static str, u8)] = &[$($(#[$vdoc])* ($name::$variant, $text, $number),)+];

            /// The names and numbers of all values.
            pub const NAMES: &'static [(&'static str, u8)] = &[$($(#[$vdoc])* ($text, $number),)+];

            /// The kernel's name.
            pub fn name(self) -> &'static str {
                match self { $($(#[$vdoc])* $name::$variant => $text,)+ }
            }

            /// The kernel's number.
            pub fn number(self) -> u8 {
                match self { $($(#[$vdoc])* $name::$variant => $number,)+ }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

pub(crate) use named;
