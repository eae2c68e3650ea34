//! Values that are written in more than one way.

use std::fmt;

use schemars::JsonSchema;
use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use touchstone_spec::api::IpMode;

use crate::{At, Place};

/// A value that a change may leave alone, remove (null) or set.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Patch<T> {
    /// Not written.
    #[default]
    Keep,
    /// Written as null.
    Remove,
    /// Written.
    Set(T),
}

impl<T: Clone> Patch<T> {
    /// The value, if one is set.
    pub fn get(&self) -> Option<&T> {
        match self {
            Patch::Set(value) => Some(value),
            Patch::Keep | Patch::Remove => None,
        }
    }

    pub(crate) fn merge(&mut self, later: &Patch<T>) {
        match later {
            Patch::Keep => {}
            Patch::Remove | Patch::Set(_) => *self = later.clone(),
        }
    }

    pub(crate) fn is_keep(&self) -> bool {
        matches!(self, Patch::Keep)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Patch<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<T>::deserialize(deserializer)?.map_or(Patch::Remove, Patch::Set))
    }
}

impl<T: Serialize> Serialize for Patch<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Patch::Keep | Patch::Remove => serializer.serialize_none(),
            Patch::Set(value) => value.serialize(serializer),
        }
    }
}

impl<T: JsonSchema> JsonSchema for Patch<T> {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        Option::<T>::schema_name()
    }
    fn json_schema(generator: &mut schemars::SchemaGenerator) -> schemars::Schema {
        Option::<T>::json_schema(generator)
    }
}

/// `loadBalancer`: a number of addresses per family, or settings.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LoadBalancerText {
    /// Number of addresses per family; 1 when left out.
    pub ingress: u8,
    /// `ipMode` of every address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ip_mode: Option<IpMode>,
    /// The addresses themselves, in the words of `externalIPs`; instead of a number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<String>,
    /// Another Service whose addresses are used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub same_as: Option<At<String>>,
    /// A name in the status besides the addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
}

impl<'de> Deserialize<'de> for LoadBalancerText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase", deny_unknown_fields)]
        struct Full {
            #[serde(default = "one")]
            ingress: u8,
            #[serde(default)]
            ip_mode: Option<IpMode>,
            #[serde(default)]
            addresses: Vec<String>,
            #[serde(default)]
            same_as: Option<At<String>>,
            #[serde(default)]
            hostname: Option<String>,
        }
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = LoadBalancerText;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(
                    "a number of addresses per family, or {ingress, ipMode, addresses, sameAs}",
                )
            }
            fn visit_u64<E: de::Error>(self, count: u64) -> Result<Self::Value, E> {
                let ingress = u8::try_from(count)
                    .map_err(|_| E::invalid_value(de::Unexpected::Unsigned(count), &self))?;
                Ok(LoadBalancerText {
                    ingress,
                    ip_mode: None,
                    addresses: vec![],
                    same_as: None,
                    hostname: None,
                })
            }
            fn visit_i64<E: de::Error>(self, count: i64) -> Result<Self::Value, E> {
                let positive = u64::try_from(count)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(count), &self))?;
                self.visit_u64(positive)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Self::Value, A::Error> {
                let Full { ingress, ip_mode, addresses, same_as, hostname } =
                    Full::deserialize(MapAccessDeserializer::new(map))?;
                Ok(LoadBalancerText { ingress, ip_mode, addresses, same_as, hostname })
            }
        }
        deserializer.deserialize_any(Either)
    }
}

fn one() -> u8 {
    1
}

/// The value `true`, which makes a key an order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Yes;

impl<'de> Deserialize<'de> for Yes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if bool::deserialize(deserializer)? {
            Ok(Yes)
        } else {
            Err(de::Error::custom("only `true` has a meaning here; leave the key out otherwise"))
        }
    }
}

impl Serialize for Yes {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bool(true)
    }
}

impl JsonSchema for Yes {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Yes".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({ "const": true })
    }
}

/// One word or a list of words.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Words(pub Vec<At<String>>);

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = At::<OneOrMany>::deserialize(deserializer)?;
        Ok(Words(match spanned.value {
            OneOrMany::One(value) => vec![At { value, place: spanned.place }],
            OneOrMany::Many(words) => words,
        }))
    }
}

enum OneOrMany {
    One(String),
    Many(Vec<At<String>>),
}

impl<'de> Deserialize<'de> for OneOrMany {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;
        impl<'de> Visitor<'de> for Either {
            type Value = OneOrMany;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word or a list of words")
            }
            fn visit_str<E: de::Error>(self, word: &str) -> Result<OneOrMany, E> {
                Ok(OneOrMany::One(word.to_owned()))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<OneOrMany, A::Error> {
                let mut words = Vec::new();
                while let Some(word) = seq.next_element()? {
                    words.push(word);
                }
                Ok(OneOrMany::Many(words))
            }
        }
        deserializer.deserialize_any(Either)
    }
}

impl Serialize for Words {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [one] => one.serialize(serializer),
            many => many.serialize(serializer),
        }
    }
}

impl JsonSchema for Words {
    fn inline_schema() -> bool {
        true
    }
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Words".into()
    }
    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "oneOf": [{ "type": "string" }, { "type": "array", "items": { "type": "string" } }]
        })
    }
}

impl Words {
    /// The place of the first word.
    pub(crate) fn place(&self) -> Place {
        self.0.first().map(|word| word.place).unwrap_or_default()
    }
}
