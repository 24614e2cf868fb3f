//! SCRAM-SHA-256 (RFC 5802, RFC 7677) from the client's side, for servers that ask for a password.
use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use hmac_sha256::{HMAC, Hash};

use crate::random;

/// The most rounds a server may ask for: PostgreSQL's default is 4,096; a million would take a second.
const ITERATIONS_MAX: u32 = 1_000_000;

/// What SHA-256 and HMAC over it give.
type Digest = [u8; 32];

/// One login.
pub(crate) struct Scram {
    password: String,
    nonce: String,
    server_signature: Option<Digest>,
}

impl Scram {
    pub(crate) fn begin(password: &str) -> Self {
        Self::with_nonce(password, &BASE64_STANDARD.encode(random::bytes::<18>()))
    }

    fn with_nonce(password: &str, nonce: &str) -> Self {
        Self { password: password.to_owned(), nonce: nonce.to_owned(), server_signature: None }
    }

    /// The first message; PostgreSQL takes the user from the start of the connection.
    pub(crate) fn first(&self) -> String {
        format!("n,,{}", self.first_bare())
    }

    fn first_bare(&self) -> String {
        format!("n=,r={}", self.nonce)
    }

    /// The answer to the server's challenge.
    pub(crate) fn answer(&mut self, challenge: &str) -> Result<String> {
        let nonce = attribute(challenge, "r=")?;
        ensure!(nonce.starts_with(&self.nonce), "the challenge is not an answer to this login");
        let salt = BASE64_STANDARD.decode(attribute(challenge, "s=")?).context("the salt is not base64")?;
        let iterations: u32 =
            attribute(challenge, "i=")?.parse().context("the number of rounds is no number")?;
        ensure!((1..=ITERATIONS_MAX).contains(&iterations), "the server asks for {iterations} rounds");

        let salted = salted_password(self.password.as_bytes(), &salt, iterations);
        let client_key = HMAC::mac(b"Client Key", salted);
        let without_proof = format!("c=biws,r={nonce}");
        let signed = format!("{},{challenge},{without_proof}", self.first_bare());
        let signature = HMAC::mac(&signed, Hash::hash(&client_key));
        let proof: Vec<u8> = client_key.iter().zip(signature).map(|(key, sign)| key ^ sign).collect();
        self.server_signature = Some(HMAC::mac(&signed, HMAC::mac(b"Server Key", salted)));
        Ok(format!("{without_proof},p={}", BASE64_STANDARD.encode(proof)))
    }

    /// Whether the server knows the password too.
    pub(crate) fn check(&self, last: &[u8]) -> Result<()> {
        let last = std::str::from_utf8(last).context("a last message that is no text")?;
        let signature =
            BASE64_STANDARD.decode(attribute(last, "v=")?).context("the signature is not base64")?;
        ensure!(
            self.server_signature.is_some_and(|own| own[..] == signature),
            "the server does not know the password"
        );
        Ok(())
    }
}

fn attribute<'a>(message: &'a str, name: &str) -> Result<&'a str> {
    let found = message.split(',').find_map(|part| part.strip_prefix(name));
    found.with_context(|| format!("the server's message has no {name}"))
}

fn salted_password(password: &[u8], salt: &[u8], iterations: u32) -> Digest {
    let mut last = HMAC::mac([salt, &1_u32.to_be_bytes()].concat(), password);
    let mut sum = last;
    for _ in 1..iterations {
        last = HMAC::mac(last, password);
        sum.iter_mut().zip(last).for_each(|(sum, byte)| *sum ^= byte);
    }
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The exchange printed in RFC 7677, section 3, with its user name left out of the signed text as PostgreSQL does.
    #[test]
    fn the_salted_password_is_that_of_the_standard() {
        let salt = BASE64_STANDARD.decode("W22ZaJ0SNY7soEsUEjb6gQ==").unwrap();
        let salted = salted_password(b"pencil", &salt, 4096);
        assert_eq!(BASE64_STANDARD.encode(salted), "xKSVEDI6tPlSysH6mUQZOeeOp01r6B3fcJbodRPcYV0=");
    }

    #[test]
    fn a_challenge_for_another_login_is_refused() {
        let mut scram = Scram::with_nonce("pencil", "abc");
        assert!(scram.answer("r=xyz123,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096").is_err());
        assert!(scram.answer("r=abc123,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=0").is_err());
        assert!(scram.answer("r=abc123,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096").is_ok());
        assert!(scram.check(b"v=AAAA").is_err());
    }
}
