//! The keys that may sign access tokens: a JWKS read from a file or fetched from a URL.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use jsonwebtoken::DecodingKey;
use serde::Deserialize;

use crate::auth::AuthError;

/// Longest wait for a JWKS URL: requests with an unknown key id wait for it.
const FETCH_TIMEOUT: Duration = Duration::from_secs(3);
/// Largest JWKS: some hundred keys; more is not a JWKS.
const JWKS_BYTES_MAX: usize = 64 * 1024;
/// Most keys at once: the present one, the next one, and a few of the past.
const KEYS_MAX: usize = 32;
/// Bytes of an Ed25519 public key.
const ED25519_KEY_BYTES: usize = 32;

/// Whether a JWKS that is a file has a usable key now; one behind a URL is not asked for.
///
/// # Errors
/// When the process could not verify anybody with that file, or the URL is none.
pub fn check_file(jwks: &str) -> Result<(), AuthError> {
    let source = Source::new(jwks)?;
    let Source::File(path) = &source else { return Ok(()) };
    let bytes = std::fs::read(path).map_err(|source| AuthError::Read { path: path.clone(), source })?;
    source.keys(&bytes).map(drop)
}

/// Public keys by their key id.
pub(crate) type Keys = HashMap<String, Arc<DecodingKey>>;

/// Where the JWKS is.
#[derive(Debug, Clone)]
pub(crate) enum Source {
    File(PathBuf),
    Url(String, reqwest::Client),
}

impl Source {
    pub(crate) fn new(jwks: &str) -> Result<Self, AuthError> {
        if !jwks.starts_with("http://") && !jwks.starts_with("https://") {
            return Ok(Self::File(PathBuf::from(jwks)));
        }
        let client = reqwest::Client::builder()
            .timeout(FETCH_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|source| AuthError::Fetch { url: jwks.to_owned(), source })?;
        Ok(Self::Url(jwks.to_owned(), client))
    }

    /// Reads the usable keys now.
    pub(crate) async fn load(&self) -> Result<Keys, AuthError> {
        let bytes = match self {
            Self::File(path) => tokio::fs::read(path)
                .await
                .map_err(|source| AuthError::Read { path: path.clone(), source })?,
            Self::Url(url, client) => {
                fetch(client, url).await.map_err(|source| AuthError::Fetch { url: url.clone(), source })?
            }
        };
        self.keys(&bytes)
    }

    /// The usable keys among those of a set; a bound on the others is its size.
    fn keys(&self, bytes: &[u8]) -> Result<Keys, AuthError> {
        if bytes.len() > JWKS_BYTES_MAX {
            return Err(AuthError::TooLarge { place: self.place() });
        }
        let set: Set = serde_json::from_slice(bytes)
            .map_err(|source| AuthError::Parse { place: self.place(), source })?;
        let keys: Keys = set.keys.into_iter().filter_map(usable).take(KEYS_MAX).collect();
        if keys.is_empty() {
            return Err(AuthError::NoUsableKey { place: self.place() });
        }
        Ok(keys)
    }

    pub(crate) fn place(&self) -> String {
        match self {
            Self::File(path) => path.display().to_string(),
            Self::Url(url, _) => url.clone(),
        }
    }
}

/// The body of a 200, up to a little over the limit.
async fn fetch(client: &reqwest::Client, url: &str) -> Result<Vec<u8>, reqwest::Error> {
    let mut response = client.get(url).send().await?.error_for_status()?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await? {
        body.extend_from_slice(&chunk);
        if body.len() > JWKS_BYTES_MAX {
            break;
        }
    }
    Ok(body)
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Key>,
}

/// The members of a JWK that decide whether we use it; a set may hold keys for others.
#[derive(Deserialize)]
struct Key {
    kty: String,
    crv: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    kid: Option<String>,
    x: Option<String>,
}

/// An Ed25519 key for signatures with a key id; `None` for any other.
fn usable(key: Key) -> Option<(String, Arc<DecodingKey>)> {
    let ours = key.kty == "OKP"
        && key.crv.as_deref() == Some("Ed25519")
        && key.alg.as_deref().is_none_or(|alg| alg == "EdDSA" || alg == "Ed25519")
        && key.purpose.as_deref().is_none_or(|purpose| purpose == "sig");
    let kid = key.kid.filter(|kid| ours && !kid.is_empty())?;
    let decoding = DecodingKey::from_ed_components(&key.x?).ok()?;
    let whole = decoding.try_get_as_bytes().is_ok_and(|bytes| bytes.len() == ED25519_KEY_BYTES);
    whole.then(|| (kid, Arc::new(decoding)))
}
