//! How this process proves itself to Kafka and knows the brokers: TLS and SASL, the same for every client in it.

use std::fmt;
use std::sync::OnceLock;

use rdkafka::config::ClientConfig;
use waybill_runtime::config::Environment;

const PROTOCOL: &str = "KAFKA_SECURITY_PROTOCOL";
const MECHANISM: &str = "KAFKA_SASL_MECHANISM";
const USERNAME: &str = "KAFKA_SASL_USERNAME";
const CA: &str = "KAFKA_SSL_CA_LOCATION";
const CERTIFICATE: &str = "KAFKA_SSL_CERTIFICATE_LOCATION";
const KEY: &str = "KAFKA_SSL_KEY_LOCATION";
const IDENTIFICATION: &str = "KAFKA_SSL_ENDPOINT_IDENTIFICATION_ALGORITHM";

const PROTOCOLS: [&str; 4] = ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"];
/// Without Kerberos and OAuth, which need more than a name and a password.
const MECHANISMS: [&str; 3] = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];

/// What this process's clients use; nothing until it is installed.
static INSTALLED: OnceLock<Security> = OnceLock::new();

/// librdkafka's security properties, from the variables that Kafka clients usually take.
///
/// | variable | |
/// |---|---|
/// | `KAFKA_SECURITY_PROTOCOL` | `PLAINTEXT` (default), `SSL`, `SASL_PLAINTEXT`, `SASL_SSL` |
/// | `KAFKA_SASL_MECHANISM` | `PLAIN`, `SCRAM-SHA-256`, `SCRAM-SHA-512` |
/// | `KAFKA_SASL_USERNAME` | |
/// | `KAFKA_SASL_PASSWORD`, `KAFKA_SASL_PASSWORD_FILE` | one of the two; a file's last line break is not part of it |
/// | `KAFKA_SSL_CA_LOCATION` | PEM file or folder of the authorities that sign the brokers' certificates; default: the system's |
/// | `KAFKA_SSL_CERTIFICATE_LOCATION`, `KAFKA_SSL_KEY_LOCATION` | PEM files of the client, where brokers ask for one |
/// | `KAFKA_SSL_KEY_PASSWORD`, `KAFKA_SSL_KEY_PASSWORD_FILE` | when the key is encrypted |
/// | `KAFKA_SSL_ENDPOINT_IDENTIFICATION_ALGORITHM` | `https` (default): the certificate names the host; `none` |
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Security {
    properties: Vec<(&'static str, String)>,
}

impl fmt::Debug for Security {
    /// Without what is secret.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = self.properties.iter().filter(|(name, _)| !name.ends_with("password"));
        f.debug_map().entries(shown.map(|(name, value)| (name, value))).finish()
    }
}

impl Security {
    /// Reads the variables; mistakes are remembered in `env`.
    pub fn read(env: &mut Environment) -> Self {
        let protocol = choice(env, PROTOCOL, &PROTOCOLS).unwrap_or_else(|| "PLAINTEXT".to_owned());
        let mut security = Self::default();
        if protocol == "PLAINTEXT" {
            for name in [MECHANISM, USERNAME, CA, CERTIFICATE] {
                if env.optional(name).is_some() {
                    // Somebody believes that it is safe.
                    env.mistake(
                        name,
                        format!("is set, but {PROTOCOL} is not: write SASL_SSL, SSL or SASL_PLAINTEXT"),
                    );
                }
            }
            return security;
        }
        security.properties.push(("security.protocol", protocol.clone()));
        if protocol.starts_with("SASL") {
            security.sasl(env);
        }
        if protocol.ends_with("SSL") {
            security.ssl(env);
        }
        security
    }

    fn sasl(&mut self, env: &mut Environment) {
        let mechanism = choice(env, MECHANISM, &MECHANISMS);
        if mechanism.is_none() && env.optional(MECHANISM).is_none() {
            env.mistake(MECHANISM, format!("is required with SASL: write one of {}", MECHANISMS.join(", ")));
        }
        let username = env.required(USERNAME);
        let password = secret(env, "KAFKA_SASL_PASSWORD", "KAFKA_SASL_PASSWORD_FILE");
        if password.is_none() {
            env.mistake("KAFKA_SASL_PASSWORD", "is required with SASL: set it, or KAFKA_SASL_PASSWORD_FILE");
        }
        self.properties.push(("sasl.mechanism", mechanism.unwrap_or_default()));
        self.properties.push(("sasl.username", username));
        self.properties.push(("sasl.password", password.unwrap_or_default()));
    }

    fn ssl(&mut self, env: &mut Environment) {
        let files =
            [(CA, "ssl.ca.location"), (CERTIFICATE, "ssl.certificate.location"), (KEY, "ssl.key.location")];
        for (variable, property) in files {
            let Some(path) = env.optional(variable) else { continue };
            if let Err(error) = std::fs::metadata(&path) {
                env.mistake(variable, format!("{path} can not be read: {error}"));
            }
            self.properties.push((property, path));
        }
        if let Some(password) = secret(env, "KAFKA_SSL_KEY_PASSWORD", "KAFKA_SSL_KEY_PASSWORD_FILE") {
            self.properties.push(("ssl.key.password", password));
        }
        let identification = choice(env, IDENTIFICATION, &["https", "none"]);
        self.properties.push((
            "ssl.endpoint.identification.algorithm",
            identification.unwrap_or_else(|| "https".to_owned()),
        ));
    }

    /// Sets the properties.
    pub fn apply(&self, config: &mut ClientConfig) {
        for (name, value) in &self.properties {
            config.set(*name, value);
        }
    }

    /// Every client that [`crate::config`] describes from now on uses it. Once a process, before the first client; a
    /// second call changes nothing.
    pub fn install(self) {
        let _kept_the_first = INSTALLED.set(self);
    }

    /// Sets the installed properties, if any.
    pub(crate) fn apply_installed(config: &mut ClientConfig) {
        if let Some(security) = INSTALLED.get() {
            security.apply(config);
        }
    }
}

fn choice(env: &mut Environment, name: &'static str, allowed: &[&str]) -> Option<String> {
    let given = env.optional(name)?;
    let found = allowed.iter().find(|known| known.eq_ignore_ascii_case(given.trim()));
    if found.is_none() {
        env.mistake(name, format!("{given:?} is unknown: write one of {}", allowed.join(", ")));
    }
    found.map(|known| (*known).to_owned())
}

/// A secret from its variable or from the file that another names; never shown.
fn secret(env: &mut Environment, variable: &'static str, file: &'static str) -> Option<String> {
    match (env.optional(variable), env.optional(file)) {
        (Some(_), Some(_)) => {
            env.mistake(file, format!("is set, and {variable} too: set one of them"));
            None
        }
        (Some(value), None) => Some(value),
        (None, Some(path)) => match std::fs::read_to_string(&path) {
            Ok(text) => Some(text.trim_end_matches(['\r', '\n']).to_owned()),
            Err(error) => {
                env.mistake(file, format!("{path} can not be read: {error}"));
                // Told already: not missing too.
                Some(String::new())
            }
        },
        (None, None) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> (Security, Vec<&'static str>) {
        let mut env = Environment::from_map(
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        let security = Security::read(&mut env);
        let mistakes = env.finish().err().map(|error| error.variables().collect()).unwrap_or_default();
        (security, mistakes)
    }

    #[test]
    fn nothing_set_is_plaintext() {
        assert_eq!(read(&[]), (Security::default(), vec![]));
    }

    #[test]
    fn scram_over_tls_is_what_librdkafka_takes() {
        let (security, mistakes) = read(&[
            (PROTOCOL, "sasl_ssl"),
            (MECHANISM, "SCRAM-SHA-512"),
            (USERNAME, "relay"),
            ("KAFKA_SASL_PASSWORD", "geheim"),
        ]);
        assert_eq!(mistakes, [""; 0]);
        assert!(!format!("{security:?}").contains("geheim"));
        let mut config = ClientConfig::new();
        security.apply(&mut config);
        assert_eq!(config.get("sasl.password"), Some("geheim"));
        assert_eq!(config.get("ssl.endpoint.identification.algorithm"), Some("https"));
        config.create_native_config().unwrap();
    }

    #[test]
    fn every_mistake_is_named() {
        let (_, mistakes) = read(&[(PROTOCOL, "SASL_SSL"), (MECHANISM, "MD5"), (CA, "/nowhere/ca.pem")]);
        assert_eq!(mistakes, [MECHANISM, USERNAME, "KAFKA_SASL_PASSWORD", CA]);
        assert_eq!(read(&[(USERNAME, "relay")]).1, [USERNAME], "a name without a protocol is no safety");
        let both = [
            (PROTOCOL, "SASL_PLAINTEXT"),
            (MECHANISM, "PLAIN"),
            (USERNAME, "relay"),
            ("KAFKA_SASL_PASSWORD_FILE", "/nowhere/password"),
        ];
        assert_eq!(read(&both).1, ["KAFKA_SASL_PASSWORD_FILE"]);
    }
}
