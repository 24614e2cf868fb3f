//! The development signing key: an Ed25519 key that signs access tokens, and its public half as a JWKS for the services.
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use ed25519_compact::{KeyPair, Seed};
use hmac_sha256::Hash;
use serde_json::json;

use crate::instance::Instance;
use crate::random;
use crate::state::replace_file;

/// The private key, in PKCS#8 as OpenSSL writes it.
const FILE: &str = "ed25519.pem";

/// A signing key with its name in the JWKS.
pub(crate) struct Key {
    pub(crate) pair: KeyPair,
    /// The key's RFC 7638 thumbprint, so that the same key has the same name everywhere.
    pub(crate) id: String,
}

/// The file of public keys that services verify with.
pub(crate) fn jwks_file(instance: &Instance) -> PathBuf {
    instance.keys().join("jwks.json")
}

/// The instance's key, made when there is none yet.
pub(crate) fn ensure(instance: &Instance) -> Result<Key> {
    let dir = instance.keys();
    fs::create_dir_all(&dir).with_context(|| format!("could not make the folder {}", dir.display()))?;
    let file = dir.join(FILE);
    if !file.exists() {
        make(&file)?;
    }
    let key = read(&file)?;
    replace_file(&jwks_file(instance), &jwks(&key))?;
    Ok(key)
}

fn make(file: &Path) -> Result<()> {
    let pem = KeyPair::from_seed(Seed::new(random::bytes())).sk.to_pem();
    // Readable by the owner alone from the first byte on.
    let opened = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file);
    opened
        .and_then(|mut opened| opened.write_all(pem.as_bytes()))
        .with_context(|| format!("could not write the signing key {}", file.display()))
}

fn read(file: &Path) -> Result<Key> {
    let pem = fs::read_to_string(file).with_context(|| format!("could not read {}", file.display()))?;
    let pair = KeyPair::from_pem(&pem).with_context(|| {
        format!("{} holds no Ed25519 key: remove it and a new one is made", file.display())
    })?;
    let id = thumbprint(&public(&pair));
    Ok(Key { pair, id })
}

fn public(pair: &KeyPair) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(*pair.pk)
}

fn thumbprint(x: &str) -> String {
    let members = format!(r#"{{"crv":"Ed25519","kty":"OKP","x":"{x}"}}"#);
    BASE64_URL_SAFE_NO_PAD.encode(Hash::hash(members.as_bytes()))
}

fn jwks(key: &Key) -> String {
    let public = json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": key.id, "x": public(&key.pair)});
    format!("{:#}\n", json!({"keys": [public]}))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::instance::tests::scratch;

    /// The example key of RFC 8037, appendix A.
    #[test]
    fn the_thumbprint_is_that_of_the_standard() {
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        assert_eq!(thumbprint(x), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    }

    #[test]
    fn a_key_is_made_once_and_closed_to_others() {
        let instance = scratch("keys");
        let first = ensure(&instance).unwrap();
        let second = ensure(&instance).unwrap();
        assert_eq!(first.id, second.id);
        let mode = fs::metadata(instance.keys().join(FILE)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let jwks = fs::read_to_string(jwks_file(&instance)).unwrap();
        assert!(jwks.contains(&first.id) && !jwks.contains("\"d\""), "the public half alone");
        fs::remove_dir_all(instance.dir()).unwrap();
    }
}
