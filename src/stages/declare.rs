//! The two macros in which a kind is declared: `kind!` and `choices!`.
//!
//! From one declaration they make the type that a manifest is read into, the defaults, the range
//! checks, the key's parts and the text that `pipeline kinds` prints.

/// An enum whose values are written in kebab-case, each with its meaning.
macro_rules! choices {
    (
        $(#[doc = $about:literal])*
        $visibility:vis enum $name:ident {
            $( $(#[doc = $variant_about:literal])* $(#[serde($($serde:tt)*)])? $variant:ident $(as $text:literal)? ),* $(,)?
        }
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        $visibility enum $name {
            $( $(#[doc = $variant_about])* $variant ),*
        }

        impl $name {
            /// Every value, in the order of its declaration.
            pub const ALL: &'static [$name] = &[$( $name::$variant ),*];

            /// The name in a manifest.
            pub fn name(self) -> &'static str {
                Self::choice_table()[self as usize].name
            }

            fn choice_table() -> &'static [$crate::parameter::Choice] {
                static TABLE: std::sync::OnceLock<Vec<$crate::parameter::Choice>> =
                    std::sync::OnceLock::new();
                TABLE.get_or_init(|| {
                    vec![$( $crate::parameter::Choice {
                        name: choices!(@name $variant $($text)?),
                        about: concat!($($variant_about),*).trim_ascii(),
                    } ),*]
                })
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(self.name())
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.name())
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <String as serde::Deserialize>::deserialize(deserializer)?;
                Self::ALL
                    .iter()
                    .copied()
                    .find(|value| value.name() == text)
                    .ok_or_else(|| {
                        let names: Vec<_> = Self::ALL.iter().map(|value| value.name()).collect();
                        <D::Error as serde::de::Error>::custom($crate::parameter::not_a_choice(
                            &text, &names,
                        ))
                    })
            }
        }

        impl $crate::parameter::Parameter for $name {
            fn value_type() -> $crate::parameter::ParameterType {
                $crate::parameter::ParameterType::Choice(Self::choice_table())
            }
        }
    };
    (@name $variant:ident $text:literal) => { $text };
    (@name $variant:ident) => { $crate::parameter::kebab_name(stringify!($variant)) };
}

/// Declares a stage kind: its name, version, output type, ports and parameters.
///
/// ```text
/// kind! {
///     /// What it does.
///     Split = "split", version 1, seeded true, output Split;
///     ports {
///         /// The data set to split.
///         data: One[Dataset];
///     }
///     parameters {
///         /// How many training samples are held out.
///         holdout: u64 = 1000, in AT_LEAST_ONE;
///         /// How they are chosen.
///         by: SplitBy = SplitBy::Random;
///     }
///     only if (by: [SplitBy::Random]) {
///         /// Which generator draws.
///         generator: Generator = Generator::Pytorch;
///     }
///     execution {}
///     headline []
/// }
/// ```
///
/// A parameter without a default must be given. `in` takes a range of `f64`. Parameters under `only if`
/// have an effect only while each of the named parameters has one of the listed values: at any other time
/// they do not enter the key, and a manifest that sets one is invalid. Parameters under
/// `execution` cannot change the result and never enter a key. The kind's own rules (checks over
/// several parameters, files outside the cache) are its implementation of [`crate::kind::Rules`].
macro_rules! kind {
    (
        $(#[doc = $about:literal])*
        $kind:ident = $name:literal, version $version:literal, seeded $seeded:literal, output $output:ident;
        ports {
            $( $(#[doc = $port_about:literal])* $port:ident : $shape:ident [ $($accepts:ident),* ]; )*
        }
        parameters {
            $( $(#[doc = $field_about:literal])* $field:ident : $type:ty $(= $default:expr)? $(, in $range:expr)?; )*
        }
        $( only if ( $( $condition:ident : [ $($value:expr),+ $(,)? ] ),+ $(,)? ) {
            $( $(#[doc = $group_about:literal])* $group:ident : $group_type:ty $(= $group_default:expr)? $(, in $group_range:expr)?; )*
        } )*
        execution {
            $( $(#[doc = $execution_about:literal])* $execution:ident : $execution_type:ty $(= $execution_default:expr)? $(, in $execution_range:expr)?; )*
        }
        headline [ $($headline:literal),* $(,)? ]
    ) => {
        $(#[doc = $about])*
        #[derive(Debug, Clone, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "kebab-case", try_from = "RawParameters")]
        pub struct $kind {
            $( $(#[doc = $field_about])* pub $field: $type, )*
            $( $( $(#[doc = $group_about])* pub $group: $group_type, )* )*
            $( $(#[doc = $execution_about])* pub $execution: $execution_type, )*
        }

        /// The parameters as written in a manifest: each may be missing.
        #[derive(Default, serde::Deserialize)]
        #[serde(rename_all = "kebab-case", deny_unknown_fields)]
        struct RawParameters {
            $( #[serde(default = "Option::default")] $field: Option<$type>, )*
            $( $( #[serde(default = "Option::default")] $group: Option<$group_type>, )* )*
            $( #[serde(default = "Option::default")] $execution: Option<$execution_type>, )*
        }

        impl TryFrom<RawParameters> for $kind {
            type Error = String;

            #[allow(unused_variables, reason = "a kind can have no parameters")]
            fn try_from(raw: RawParameters) -> Result<Self, String> {
                Ok(Self {
                    $( $field: kind!(@value raw.$field, $field $(, $default)?), )*
                    $( $( $group: kind!(@value raw.$group, $group $(, $group_default)?), )* )*
                    $( $execution: kind!(@value raw.$execution, $execution $(, $execution_default)?), )*
                })
            }
        }

        // A group depends on parameters of the kind, with values of the right type.
        const _: fn(&$kind) = |_stage| {
            $( $( let _ = [$( _stage.$condition == $value ),+]; )+ )*
        };

        impl $crate::kind::Kind for $kind {
            const NAME: &'static str = $name;
            const VERSION: u32 = $version;
            const SEEDED: bool = $seeded;
            const OUTPUT: $crate::artifact::ArtifactType = $crate::artifact::ArtifactType::$output;
            const HEADLINE: &'static [&'static str] = &[$($headline),*];

            fn about() -> &'static str {
                concat!($($about, "\n"),*).trim_ascii()
            }

            fn ports() -> &'static [$crate::kind::Port] {
                static PORTS: &[$crate::kind::Port] = &[$( $crate::kind::Port {
                    identifier: stringify!($port),
                    about: concat!($($port_about, "\n"),*).trim_ascii(),
                    shape: $crate::kind::PortShape::$shape,
                    accepts: &[$($crate::artifact::ArtifactType::$accepts),*],
                } ),*];
                PORTS
            }

            #[allow(unused_mut, reason = "a kind can have no parameters")]
            fn fields() -> &'static [$crate::parameter::Field] {
                static FIELDS: std::sync::OnceLock<Vec<$crate::parameter::Field>> =
                    std::sync::OnceLock::new();
                FIELDS.get_or_init(|| {
                let mut fields = vec![
                    $( kind!(@field $field, [$($field_about),*], $type, [$($default)?], [$($range)?], Vec::new(), Result) ),*
                ];
                $( {
                    let only_if = vec![$( $crate::parameter::Condition {
                        parameter: $crate::parameter::kebab_case(stringify!($condition)),
                        values: vec![$( serde_json::to_value($value).expect("a value is plain data") ),+],
                    } ),+];
                    fields.extend(vec![
                        $( kind!(@field $group, [$($group_about),*], $group_type, [$($group_default)?], [$($group_range)?], only_if.clone(), Result) ),*
                    ]);
                } )*
                let execution: Vec<$crate::parameter::Field> = vec![
                    $( kind!(@field $execution, [$($execution_about),*], $execution_type, [$($execution_default)?], [$($execution_range)?], Vec::new(), Execution) ),*
                ];
                fields.extend(execution);
                fields
                })
            }

            fn numbers(&self) -> Vec<Option<f64>> {
                vec![
                    $( $crate::parameter::Parameter::number(&self.$field), )*
                    $( $( $crate::parameter::Parameter::number(&self.$group), )* )*
                    $( $crate::parameter::Parameter::number(&self.$execution), )*
                ]
            }
        }
    };
    (@field $field:ident, [$($about:literal),*], $type:ty, [$($default:expr)?], [$($range:expr)?], $only_if:expr, $role:ident) => {
        $crate::parameter::Field {
            name: $crate::parameter::kebab_case(stringify!($field)),
            about: concat!($($about, "\n"),*).trim_ascii(),
            value_type: <$type as $crate::parameter::Parameter>::value_type(),
            default: kind!(@default $type $(, $default)?),
            range: kind!(@range $($range)?),
            role: $crate::parameter::Role::$role,
            only_if: $only_if,
        }
    };
    (@value $raw:expr, $field:ident) => {
        $raw.ok_or_else(|| {
            format!("missing '{}'", $crate::parameter::kebab_case(stringify!($field)))
        })?
    };
    (@value $raw:expr, $field:ident, $default:expr) => { $raw.unwrap_or_else(|| $default) };
    (@default $type:ty) => { None };
    (@default $type:ty, $default:expr) => {
        Some(serde_json::to_value::<$type>($default).expect("a default is plain data"))
    };
    (@range) => { None };
    (@range $range:expr) => { Some($crate::parameter::Range::new($range)) };
}
