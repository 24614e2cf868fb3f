//! Access tokens for tests: an Ed25519 key, its JWKS in a file, and a way to sign anything, forgeries included.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ed25519_dalek::{Signer, SigningKey};
use serde_json::{Value, json};

/// How long a test's token is valid: longer than any test runs.
const LIFETIME_S: i64 = 3600;

/// A signing key with its JWKS file; the file goes when this value goes.
pub struct Tokens {
    key: SigningKey,
    kid: String,
    jwks: PathBuf,
}

impl Tokens {
    /// The issuer every token names.
    pub const ISSUER: &'static str = "waybill";
    /// The audience every token names.
    pub const AUDIENCE: &'static str = "waybill";

    /// Makes a key and writes its JWKS file in the system's folder for temporary files.
    ///
    /// # Panics
    /// When the file can not be written.
    #[must_use]
    pub fn new() -> Tokens {
        let key = SigningKey::from_bytes(&rand::random());
        let number = rand::random::<u64>();
        let kid = format!("test-{number:016x}");
        let jwks = std::env::temp_dir().join(format!("waybill-test-{number:016x}.jwks.json"));
        let tokens = Tokens { key, kid, jwks };
        tokens.write_jwks(&[tokens.jwk()]);
        tokens
    }

    /// Path of the JWKS file, for `WAYBILL_JWKS`.
    #[must_use]
    pub fn jwks_path(&self) -> &Path {
        &self.jwks
    }

    /// This key as a JWK (public part).
    #[must_use]
    pub fn jwk(&self) -> Value {
        json!({"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": "EdDSA", "kid": self.kid, "x": base64url(&self.public_key())})
    }

    /// Writes these keys into this value's JWKS file, for tests of rotation.
    ///
    /// # Panics
    /// When the file can not be written.
    pub fn write_jwks(&self, keys: &[Value]) {
        let written = std::fs::write(&self.jwks, json!({ "keys": keys }).to_string());
        written.unwrap_or_else(|e| panic!("writing {}: {e}", self.jwks.display()));
    }

    /// The key id its tokens name.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.kid
    }

    /// The 32 bytes of the public key.
    #[must_use]
    pub fn public_key(&self) -> [u8; 32] {
        self.key.verifying_key().to_bytes()
    }

    /// A valid token; role is `customer`, `admin` or `operator`.
    #[must_use]
    pub fn token(&self, sub: &str, role: &str) -> String {
        self.sign(&self.header(), &Self::claims(sub, role))
    }

    /// A token that was valid until an hour ago.
    #[must_use]
    pub fn expired(&self, sub: &str, role: &str) -> String {
        let mut claims = Self::claims(sub, role);
        claims["exp"] = json!(now_s() - LIFETIME_S);
        self.sign(&self.header(), &claims)
    }

    /// A token signed by a key nobody knows, under the known key id.
    #[must_use]
    pub fn forged_key(&self, sub: &str, role: &str) -> String {
        let stranger = SigningKey::from_bytes(&rand::random());
        sign_with(&stranger, &self.header(), &Self::claims(sub, role))
    }

    /// A token that says `alg: none` and has an empty signature.
    #[must_use]
    pub fn forged_none(&self, sub: &str, role: &str) -> String {
        let header = json!({"typ": "JWT", "alg": "none", "kid": self.kid});
        format!("{}.", unsigned(&header, &Self::claims(sub, role)))
    }

    /// The header of a valid token, to be bent by a test.
    #[must_use]
    pub fn header(&self) -> Value {
        json!({"typ": "JWT", "alg": "EdDSA", "kid": self.kid})
    }

    /// The claims of a valid token, to be bent by a test.
    #[must_use]
    pub fn claims(sub: &str, role: &str) -> Value {
        json!({"sub": sub, "role": role, "iss": Self::ISSUER, "aud": Self::AUDIENCE, "exp": now_s() + LIFETIME_S})
    }

    /// Signs any header and claims with this key.
    #[must_use]
    pub fn sign(&self, header: &Value, claims: &Value) -> String {
        sign_with(&self.key, header, claims)
    }
}

impl Default for Tokens {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Tokens {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.jwks);
    }
}

/// The first two parts of a token, for tests that sign by themselves.
#[must_use]
pub fn unsigned(header: &Value, claims: &Value) -> String {
    format!("{}.{}", base64url(header.to_string().as_bytes()), base64url(claims.to_string().as_bytes()))
}

/// Base64 for URLs, without padding, as tokens use it.
#[must_use]
pub fn base64url(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn sign_with(key: &SigningKey, header: &Value, claims: &Value) -> String {
    let signed = unsigned(header, claims);
    let signature = key.sign(signed.as_bytes());
    format!("{signed}.{}", base64url(&signature.to_bytes()))
}

fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is after 1970");
    i64::try_from(since.as_secs()).expect("seconds fit")
}
