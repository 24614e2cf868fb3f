//! `cargo xtask token`: an access token for development, signed with the development key.
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use clap::{ArgMatches, Command, value_parser};
use serde_json::json;

use crate::arguments::{Choice, chosen, one_of, option, value};
use crate::keys::{self, Key};
use crate::layout::Layout;
use crate::{random, say};

/// How long a token lives when nobody says, in seconds: a working day.
const LIFETIME_S: u64 = 8 * 60 * 60;
/// The longest life of a token, in seconds: 30 days, even in development.
const LIFETIME_S_MAX: u64 = 30 * 24 * 60 * 60;

/// What the bearer may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    Customer,
    Admin,
    Operator,
}

impl Choice for Role {
    const WORDS: &'static [(&'static str, Self, &'static str)] = &[
        ("customer", Self::Customer, "Places and reads own orders"),
        ("admin", Self::Admin, "Keeps the catalogue and the stock"),
        ("operator", Self::Operator, "Watches sagas and dead letters"),
    ];
}

/// Arguments of `token`.
#[derive(Debug)]
pub(crate) struct TokenArgs {
    sub: String,
    role: Role,
    ttl: u64,
}

impl TokenArgs {
    pub(crate) fn describe(command: Command) -> Command {
        let ttl = option("ttl", "How long it lives, in seconds [default: 28800]");
        command.args([
            option("sub", "Whom the token names; a customer's is a UUID").required(true),
            option("role", "What the bearer may do").required(true).value_parser(one_of::<Role>()),
            ttl.value_parser(value_parser!(u64).range(1..=LIFETIME_S_MAX)),
        ])
    }

    pub(crate) fn read(matches: &ArgMatches) -> Result<Self> {
        let role = chosen(matches, "role").pop().context("no role was given")?;
        let ttl = matches.get_one("ttl").copied().unwrap_or(LIFETIME_S);
        Ok(Self { sub: value(matches, "sub"), role, ttl })
    }
}

/// Prints a token and nothing else.
pub(crate) fn run(args: &TokenArgs) -> Result<ExitCode> {
    let key = keys::ensure(&Layout::find()?.dev())?;
    if args.role == Role::Customer && !looks_like_uuid(&args.sub) {
        say::progress(&format!("note: customers are known by a UUID; services refuse `{}` as one", args.sub));
    }
    say::answer(&sign(&key, &args.sub, args.role, args.ttl)?);
    Ok(ExitCode::SUCCESS)
}

/// A signed token that lives `ttl` seconds from now on.
pub(crate) fn sign(key: &Key, sub: &str, role: Role, ttl: u64) -> Result<String> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock stands before 1970")?.as_secs();
    let header = json!({"alg": "EdDSA", "typ": "JWT", "kid": key.id});
    let env = |name: &str| std::env::var(name).unwrap_or_else(|_| "waybill".to_owned());
    let claims = json!({
        "sub": sub,
        "role": role.word(),
        "iss": env("WAYBILL_TOKEN_ISSUER"),
        "aud": env("WAYBILL_TOKEN_AUDIENCE"),
        "iat": now,
        "exp": now + ttl,
    });
    let encode = |value: serde_json::Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", encode(header), encode(claims));
    let signature = key.pair.sk.sign(signed.as_bytes(), None);
    Ok(format!("{signed}.{}", BASE64_URL_SAFE_NO_PAD.encode(*signature)))
}

fn looks_like_uuid(text: &str) -> bool {
    let groups: Vec<usize> = text.split('-').map(str::len).collect();
    groups == [8, 4, 4, 4, 12] && text.chars().all(|c| c == '-' || c.is_ascii_hexdigit())
}

/// A random UUID (version 4) for a customer nobody has been before.
pub(crate) fn random_uuid() -> String {
    let mut bytes = random::bytes::<16>();
    bytes[6] = (bytes[6] & 0x0f) | 0x40;
    bytes[8] = (bytes[8] & 0x3f) | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use ed25519_compact::{KeyPair, Seed, Signature};

    use super::*;

    #[test]
    fn a_token_carries_its_claims_and_a_good_signature() {
        let key = Key { pair: KeyPair::from_seed(Seed::new([7; 32])), id: "k".to_owned() };
        let token = sign(&key, "someone", Role::Admin, 60).unwrap();
        let parts: Vec<&str> = token.split('.').collect();
        let decode = |part: &str| BASE64_URL_SAFE_NO_PAD.decode(part).unwrap();
        let claims: serde_json::Value = serde_json::from_slice(&decode(parts[1])).unwrap();
        assert_eq!((&claims["sub"], &claims["role"]), (&json!("someone"), &json!("admin")));
        assert_eq!(claims["exp"].as_u64().unwrap() - claims["iat"].as_u64().unwrap(), 60);
        let signature = Signature::from_slice(&decode(parts[2])).unwrap();
        let signed = format!("{}.{}", parts[0], parts[1]);
        key.pair.pk.verify(signed, &signature).unwrap();
    }

    #[test]
    fn random_customers_are_uuids() {
        assert!(looks_like_uuid(&random_uuid()));
        assert!(!looks_like_uuid("customer-1"));
    }
}
