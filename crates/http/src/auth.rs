//! Who calls: Ed25519 access tokens, verified by each service against a JWKS. No header says who a caller is but the token.

use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use axum::extract::{FromRef, FromRequestParts};
use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;
use axum::http::request::Parts;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::Deserialize;
use uuid::Uuid;

use crate::error::ApiError;
use crate::jwks::{Keys, Source};
use crate::verified::{Known, Times, Untimely, Verified, now_s};

/// Largest token read: ours have about 400 bytes.
const TOKEN_BYTES_MAX: usize = 4 * 1024;
/// Longest subject: it becomes part of an idempotency key's index row.
const SUBJECT_CHARS_MAX: usize = 128;
/// How far a server's clock may be behind or ahead of the signer's.
pub(crate) const LEEWAY_S: u64 = 5;
/// Least time between two readings of the JWKS: unknown key ids are free to send and must not load the signer.
const REFRESH_FLOOR: Duration = Duration::from_secs(30);
/// A JWKS older than this is read again at the next token, so that a key that was withdrawn stops working.
const KEYS_AGE_MAX: Duration = Duration::from_secs(600);

/// Why the keys could not be had.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// The file is missing or may not be read.
    #[error("the JWKS file {} can not be read: make one with `cargo xtask up`, or set WAYBILL_JWKS to yours", path.display())]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The URL does not answer with a 2xx.
    #[error("the JWKS can not be fetched from {url}")]
    Fetch {
        /// Which URL.
        url: String,
        /// Why.
        source: reqwest::Error,
    },
    /// More bytes than any JWKS.
    #[error("the JWKS at {place} is over 64 KiB")]
    TooLarge {
        /// Where it was read.
        place: String,
    },
    /// Not a JWKS.
    #[error("the JWKS at {place} is not a JSON Web Key Set")]
    Parse {
        /// Where it was read.
        place: String,
        /// Why.
        source: serde_json::Error,
    },
    /// Nothing in it can verify a token.
    #[error(
        "the JWKS at {place} has no Ed25519 key with a kid: add one with kty OKP, crv Ed25519, kid and x"
    )]
    NoUsableKey {
        /// Where it was read.
        place: String,
    },
}

/// Verifies access tokens. One per process, shared in an `Arc`.
///
/// The algorithm is EdDSA whatever the token says; `iss`, `aud`, `exp` and `sub` are required; `kid` must be in the
/// JWKS. An unknown `kid` has the JWKS read again, at most every 30 s.
#[derive(Debug)]
pub struct Verifier {
    source: Source,
    validation: Validation,
    keys: RwLock<(Instant, Keys)>,
    last_read: tokio::sync::Mutex<Instant>,
    refresh_floor: Duration,
    verified: Verified,
}

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Buys: own orders only.
    Customer,
    /// Keeps the catalogue and the stock.
    Admin,
    /// Watches and mends the running system.
    Operator,
}

/// Who calls, from a verified token. An extractor where the state gives an `Arc<Verifier>` (axum's `FromRef`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The token's `sub`.
    pub subject: String,
    /// The token's `role`.
    pub role: Role,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    role: Role,
    exp: f64,
    nbf: Option<f64>,
}

impl Verifier {
    /// Reads the JWKS (`jwks` is a path or an http(s) URL) and verifies for this issuer and audience.
    ///
    /// # Errors
    /// When there is no usable key now: a process that can verify nobody should not start.
    pub async fn load(jwks: &str, issuer: &str, audience: &str) -> Result<Self, AuthError> {
        let source = Source::new(jwks)?;
        let keys = source.load().await?;
        let mut validation = Validation::new(Algorithm::EdDSA);
        validation.set_issuer(&[issuer]);
        validation.set_audience(&[audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.leeway = LEEWAY_S;
        validation.validate_nbf = true;
        let now = Instant::now();
        let keys = RwLock::new((now, keys));
        let last_read = tokio::sync::Mutex::new(now);
        let (refresh_floor, verified) = (REFRESH_FLOOR, Verified::default());
        Ok(Self { source, validation, keys, last_read, refresh_floor, verified })
    }

    /// Another least time between two readings of the JWKS; for tests of rotation.
    #[must_use]
    pub fn with_refresh_floor(mut self, floor: Duration) -> Self {
        self.refresh_floor = floor;
        self
    }

    /// Who holds this token. Its signature is checked once while the keys stay as they are; that it holds now, each time.
    ///
    /// # Errors
    /// 401 `token_malformed` (not a token), `token_expired`, or `token_invalid` (everything else; the reason is only logged).
    pub async fn verify(&self, token: &str) -> Result<Caller, ApiError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(malformed());
        }
        let fingerprint = Verified::fingerprint(token);
        if let Some(known) = self.verified.find(&fingerprint)
            && self.key(&known.kid).await.is_some_and(|key| Arc::ptr_eq(&key, &known.key))
        {
            return match known.times.hold(now_s()) {
                Ok(()) => Ok(known.caller.clone()),
                Err(Untimely::Expired) => Err(expired()),
                Err(Untimely::TooEarly) => Err(invalid("it holds later than now")),
            };
        }
        let known = self.verify_anew(token).await?;
        let caller = known.caller.clone();
        self.verified.remember(fingerprint, known);
        Ok(caller)
    }

    async fn verify_anew(&self, token: &str) -> Result<Known, ApiError> {
        let header = jsonwebtoken::decode_header(token).map_err(|_| malformed())?;
        let kid = kid(&header).map_err(invalid)?;
        let key = self.key(kid).await.ok_or_else(|| invalid("its kid is not in the JWKS"))?;
        let claims = jsonwebtoken::decode::<Claims>(token, &key, &self.validation)
            .map_err(|error| match error.kind() {
                ErrorKind::ExpiredSignature => expired(),
                _ => invalid(&error.to_string()),
            })?
            .claims;
        let Claims { sub, role, exp, nbf } = claims;
        if sub.is_empty() || sub.chars().count() > SUBJECT_CHARS_MAX {
            return Err(invalid("its sub is empty or too long"));
        }
        let times = Times { not_before: nbf, expires: exp };
        Ok(Known { caller: Caller { subject: sub, role }, kid: kid.to_owned(), key, times })
    }

    /// Who sends a request with these headers.
    ///
    /// # Errors
    /// 401 `token_missing` or `token_malformed`, and those of [`Verifier::verify`].
    pub async fn caller(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        self.verify(bearer(headers)?).await
    }

    async fn key(&self, kid: &str) -> Option<Arc<DecodingKey>> {
        let (found, age) = self.known(kid);
        match found {
            Some(key) if age <= KEYS_AGE_MAX => Some(key),
            Some(key) => match self.last_read.try_lock() {
                Ok(last_read) => {
                    self.refresh(last_read).await;
                    self.known(kid).0
                }
                // Somebody reads the set again just now; the old one serves until then.
                Err(_) => Some(key),
            },
            None => {
                self.refresh(self.last_read.lock().await).await;
                self.known(kid).0
            }
        }
    }

    fn known(&self, kid: &str) -> (Option<Arc<DecodingKey>>, Duration) {
        let keys = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        (keys.1.get(kid).cloned(), keys.0.elapsed())
    }

    /// Reads the JWKS again unless that was done just now; on failure the keys stay as they are.
    async fn refresh(&self, mut last_read: tokio::sync::MutexGuard<'_, Instant>) {
        if last_read.elapsed() < self.refresh_floor {
            return;
        }
        *last_read = Instant::now();
        match self.source.load().await {
            Ok(keys) => {
                *self.keys.write().unwrap_or_else(PoisonError::into_inner) = (Instant::now(), keys);
                self.verified.forget();
            }
            Err(error) => {
                let error = &error as &dyn std::error::Error;
                tracing::warn!(error, place = self.source.place(), "the JWKS could not be read again");
            }
        }
    }
}

/// The key id of a header we accept: EdDSA, a JWT, nothing critical that we do not know.
fn kid(header: &Header) -> Result<&str, &'static str> {
    if header.alg != Algorithm::EdDSA {
        return Err("its algorithm is not EdDSA");
    }
    let jwt = |typ: &str| typ.eq_ignore_ascii_case("JWT") || typ.eq_ignore_ascii_case("at+jwt");
    if !header.typ.as_deref().is_none_or(jwt) {
        return Err("its typ is not JWT");
    }
    if header.crit.is_some() {
        return Err("it has critical extensions");
    }
    header.kid.as_deref().ok_or("it has no kid")
}

fn malformed() -> ApiError {
    ApiError::unauthorized("token_malformed", "the access token is not a JWT of ours")
}

fn expired() -> ApiError {
    ApiError::unauthorized("token_expired", "the access token has expired: get a new one")
}

fn invalid(why: &str) -> ApiError {
    tracing::debug!(why, "an access token was refused");
    ApiError::unauthorized("token_invalid", "the access token does not hold here: get a new one")
}

impl Caller {
    /// The customer who calls.
    ///
    /// # Errors
    /// 403 `customer_required` when the caller is not a customer with a UUID for a subject.
    pub fn customer_id(&self) -> Result<Uuid, ApiError> {
        let id = Uuid::parse_str(&self.subject).ok().filter(|_| self.role == Role::Customer);
        id.ok_or_else(|| {
            ApiError::forbidden(
                "customer_required",
                "only a customer may do this: use a customer's access token",
            )
        })
    }

    /// Refuses callers of another role.
    ///
    /// # Errors
    /// 403 `role_required`.
    pub fn require(&self, role: Role) -> Result<(), ApiError> {
        if self.role == role {
            return Ok(());
        }
        let message = format!("this needs the role {}", format!("{role:?}").to_lowercase());
        Err(ApiError::forbidden("role_required", message))
    }
}

impl<S> FromRequestParts<S> for Caller
where
    S: Send + Sync,
    Arc<Verifier>: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        Arc::<Verifier>::from_ref(state).caller(&parts.headers).await
    }
}

/// The token of exactly one `Authorization: Bearer` header.
fn bearer(headers: &HeaderMap) -> Result<&str, ApiError> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let message = "send the header Authorization: Bearer ACCESS_TOKEN, once";
    let value = values.next().ok_or_else(|| ApiError::unauthorized("token_missing", message))?;
    let parts = value.to_str().ok().and_then(|text| text.split_once(' '));
    match parts {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") && values.next().is_none() => {
            Ok(token.trim())
        }
        _ => Err(ApiError::unauthorized("token_malformed", message)),
    }
}
