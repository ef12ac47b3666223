//! Configuration from a file and the environment, with unknown keys refused.

pub mod duration;
mod secret;

use std::{collections::HashMap, env, fmt, path::Path};

use ::config::{Config, ConfigBuilder, Environment, File, FileFormat, builder::DefaultState};
use serde::{Deserialize, Deserializer, Serialize, de::DeserializeOwned};

pub use secret::Secret;

/// Between the parts of a key in the name of a variable.
const SEPARATOR: &str = "__";
/// Replicas behind one setting; more is a mistake.
const MAX_ADDRESSES: usize = 64;

/// Why a configuration cannot be used; the message names the file or the environment, and the key.
#[derive(Debug, thiserror::Error)]
#[error("invalid configuration in {place}: {reason}")]
pub struct ConfigError {
    place: String,
    reason: Box<::config::ConfigError>,
}

/// Reads a configuration: what stands in neither place has the default of its type. A variable `<PREFIX>_SECTION__KEY` wins over
/// `key` of `[section]` in the TOML file. Variables without a section are for flags and are not looked at.
///
/// Types carry `#[serde(deny_unknown_fields)]`, so that a misspelt key is an error and not silence.
///
/// # Errors
/// When the file cannot be read, a key is unknown, or a value does not fit.
pub fn load<T: DeserializeOwned>(file: Option<&Path>, env_prefix: &str) -> Result<T, ConfigError> {
    let begin = format!("{env_prefix}_");
    let of_sections = |name: &str| name.strip_prefix(&begin).is_some_and(|key| key.contains(SEPARATOR));
    // Names and values that are not Unicode cannot be settings.
    let variables = env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    load_from(file, env_prefix, variables.filter(|(name, _)| of_sections(name)).collect())
}

fn load_from<T: DeserializeOwned>(file: Option<&Path>, prefix: &str, variables: HashMap<String, String>) -> Result<T, ConfigError> {
    let mut builder = Config::builder();
    if let Some(file) = file {
        builder = builder.add_source(File::from(file).format(FileFormat::Toml));
        // By itself first, so that an error says which of the two is wrong.
        read::<T>(&builder).map_err(|reason| ConfigError { place: file.display().to_string(), reason })?;
    }
    let environment =
        Environment::with_prefix(prefix).prefix_separator("_").separator(SEPARATOR).try_parsing(true).source(Some(variables));
    read(&builder.add_source(environment)).map_err(|reason| ConfigError { place: "the environment".to_owned(), reason })
}

fn read<T: DeserializeOwned>(builder: &ConfigBuilder<DefaultState>) -> Result<T, Box<::config::ConfigError>> {
    Ok(builder.build_cloned()?.try_deserialize()?)
}

/// Addresses of the replicas of a service: a list, or one text with commas.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct AddressList(Vec<String>);

impl AddressList {
    /// The addresses.
    #[must_use]
    pub fn as_slice(&self) -> &[String] {
        &self.0
    }

    /// True when nothing is configured.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<String> for AddressList {
    fn from_iter<I: IntoIterator<Item = String>>(addresses: I) -> Self {
        Self(addresses.into_iter().collect())
    }
}

impl fmt::Display for AddressList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join(","))
    }
}

impl<'de> Deserialize<'de> for AddressList {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "an address, or a list of addresses")]
        enum Form {
            Text(String),
            List(Vec<String>),
        }
        let addresses: Vec<String> = match Form::deserialize(deserializer)? {
            Form::Text(text) => {
                text.split(',').map(|address| address.trim().to_owned()).filter(|address| !address.is_empty()).collect()
            }
            Form::List(list) => list,
        };
        if addresses.len() > MAX_ADDRESSES {
            return Err(serde::de::Error::custom(format_args!("{} addresses; at most {MAX_ADDRESSES}", addresses.len())));
        }
        Ok(Self(addresses))
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, time::Duration};

    use super::*;

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Settings {
        store: Store,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Store {
        url: Secret<String>,
        pool: u32,
        #[serde(with = "duration")]
        timeout: Duration,
        peers: AddressList,
    }

    fn load_text(toml: &str, variables: &[(&str, &str)]) -> Result<Settings, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("oxcart.toml");
        fs::write(&file, toml).unwrap();
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        load_from(Some(&file), "OXCART", variables)
    }

    #[test]
    fn the_environment_wins_over_the_file() {
        let toml = "[store]\nurl = \"mysql://a\"\npool = 3\ntimeout = \"1m 30s\"\npeers = [\"a:1\"]\n";
        let settings = load_text(toml, &[("OXCART_STORE__POOL", "9"), ("OXCART_STORE__PEERS", "b:1, c:2")]).unwrap();
        assert_eq!((settings.store.pool, settings.store.timeout), (9, Duration::from_secs(90)));
        assert_eq!(settings.store.peers.as_slice(), ["b:1", "c:2"]);
        assert_eq!(settings.store.url.expose(), "mysql://a");
        assert!(!format!("{settings:?}").contains("mysql://a"));
    }

    #[test]
    fn unknown_keys_and_bad_values_are_named() {
        for (toml, variables, named) in [
            ("[store]\npoool = 3\n", &[][..], "poool"),
            ("[shop]\nx = 1\n", &[], "shop"),
            ("", &[("OXCART_STORE__POOOL", "3")], "poool"),
            ("[store]\ntimeout = \"soon\"\n", &[], "store.timeout"),
            ("[store]\npool = \"many\"\n", &[], "store.pool"),
        ] {
            let error = load_text(toml, variables).unwrap_err();
            let place = if variables.is_empty() { "oxcart.toml: " } else { "in the environment: " };
            assert!(error.to_string().contains(named) && error.to_string().contains(place), "{error}");
        }
    }

    #[test]
    fn a_missing_file_is_an_error() {
        assert!(load_from::<Settings>(Some(Path::new("/nonexistent/oxcart.toml")), "OXCART", HashMap::new()).is_err());
        assert!(load_from::<Settings>(None, "OXCART", HashMap::new()).is_ok());
    }
}
