//! Access tokens: the good ones, every forgery we know, and the rotation of keys.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::FromRef;
use axum::http::HeaderValue;
use axum::routing::get;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};
use uuid::Uuid;
use waybill_http::auth::{AuthError, Caller, Role, Verifier};
use waybill_testkit::{Tokens, eventually, tokens};

use crate::server::Server;

const CUSTOMER: &str = "01980000-0000-7000-8000-000000000001";

async fn verifier(tokens: &Tokens) -> Verifier {
    let path = tokens.jwks_path().to_str().unwrap();
    Verifier::load(path, Tokens::ISSUER, Tokens::AUDIENCE).await.unwrap()
}

async fn refused(verifier: &Verifier, token: &str) -> &'static str {
    let error = verifier.verify(token).await.expect_err("this token is to be refused");
    assert_eq!(error.status, 401);
    error.code
}

#[tokio::test]
async fn a_good_token_tells_who_calls() {
    let tokens = Tokens::new();
    let verifier = verifier(&tokens).await;
    let customer = verifier.verify(&tokens.token(CUSTOMER, "customer")).await.unwrap();
    assert_eq!(customer.customer_id().unwrap(), Uuid::parse_str(CUSTOMER).unwrap());
    assert_eq!(customer.require(Role::Admin).unwrap_err().code, "role_required");
    let admin = verifier.verify(&tokens.token("someone", "admin")).await.unwrap();
    assert_eq!(admin, Caller { subject: "someone".to_owned(), role: Role::Admin });
    assert!(admin.require(Role::Admin).is_ok());
    assert_eq!(admin.customer_id().unwrap_err().code, "customer_required");
    let nameless = verifier.verify(&tokens.token("not-a-uuid", "customer")).await.unwrap();
    assert_eq!(nameless.customer_id().unwrap_err().status, 403);
    let several = json!({"aud": ["other", Tokens::AUDIENCE]});
    assert!(verifier.verify(&bent_claims(&tokens, several)).await.is_ok());
}

/// A token signed by the right key whose claims are changed; null removes one.
fn bent_claims(tokens: &Tokens, change: Value) -> String {
    tokens.sign(&tokens.header(), &bent(Tokens::claims(CUSTOMER, "customer"), change))
}

fn bent_header(tokens: &Tokens, change: Value) -> String {
    tokens.sign(&bent(tokens.header(), change), &Tokens::claims(CUSTOMER, "customer"))
}

fn bent(mut value: Value, change: Value) -> Value {
    let fields = value.as_object_mut().unwrap();
    for (name, new) in change.as_object().unwrap() {
        if new.is_null() {
            fields.remove(name);
        } else {
            fields.insert(name.clone(), new.clone());
        }
    }
    value
}

#[tokio::test]
async fn claims_that_do_not_hold_are_refused() {
    let tokens = Tokens::new();
    let verifier = verifier(&tokens).await;
    assert_eq!(refused(&verifier, &tokens.expired(CUSTOMER, "customer")).await, "token_expired");
    for change in [
        json!({"aud": "other"}),
        json!({"aud": ["other"]}),
        json!({"aud": null}),
        json!({"iss": "other"}),
        json!({"iss": null}),
        json!({"exp": null}),
        json!({"exp": "4102444800"}),
        json!({"exp": -1}),
        json!({"exp": {}}),
        json!({"exp": 1e300}),
        json!({"sub": null}),
        json!({"sub": ""}),
        json!({"sub": 7}),
        json!({"sub": "s".repeat(129)}),
        json!({"role": null}),
        json!({"role": "root"}),
        json!({"role": "Admin"}),
        json!({"nbf": 4_102_444_800_u64}),
        json!({"nbf": "later"}),
    ] {
        assert_eq!(
            refused(&verifier, &bent_claims(&tokens, change.clone())).await,
            "token_invalid",
            "{change}"
        );
    }
}

#[tokio::test]
async fn headers_that_bend_the_rules_are_refused() {
    let tokens = Tokens::new();
    let verifier = verifier(&tokens).await;
    for change in [
        json!({"kid": "../../../etc/passwd"}),
        json!({"kid": "' or 1=1 --"}),
        json!({"kid": ""}),
        json!({"kid": null}),
        json!({"alg": "HS256"}),
        json!({"alg": "RS256"}),
        json!({"typ": "JWE"}),
        json!({"crit": ["exp"]}),
        json!({"kid": null, "jwk": tokens.jwk()}),
        json!({"kid": null, "jku": "http://127.0.0.1:1/keys"}),
    ] {
        assert_eq!(
            refused(&verifier, &bent_header(&tokens, change.clone())).await,
            "token_invalid",
            "{change}"
        );
    }
    for change in [json!({"alg": null}), json!({"alg": "none"}), json!({"alg": "None"}), json!({"kid": 7})] {
        assert_eq!(
            refused(&verifier, &bent_header(&tokens, change.clone())).await,
            "token_malformed",
            "{change}"
        );
    }
}

#[tokio::test]
async fn signatures_that_are_not_ours_are_refused() {
    let tokens = Tokens::new();
    let verifier = verifier(&tokens).await;
    assert_eq!(refused(&verifier, &tokens.forged_key(CUSTOMER, "customer")).await, "token_invalid");
    assert_eq!(refused(&verifier, &tokens.forged_none(CUSTOMER, "customer")).await, "token_malformed");
    // The classic confusion: the public key, which everybody has, as the secret of a MAC.
    let header = json!({"typ": "JWT", "alg": "HS256", "kid": tokens.kid()});
    for secret in [tokens.public_key().to_vec(), tokens.jwk()["x"].as_str().unwrap().as_bytes().to_vec()] {
        let signed = tokens::unsigned(&header, &Tokens::claims(CUSTOMER, "customer"));
        let key = EncodingKey::from_secret(&secret);
        let mac = jsonwebtoken::crypto::sign(signed.as_bytes(), &key, Algorithm::HS256).unwrap();
        assert_eq!(refused(&verifier, &format!("{signed}.{mac}")).await, "token_invalid");
    }
    let good = tokens.token(CUSTOMER, "customer");
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let other = tokens.token("someone", "admin");
    let swapped = format!("{}.{signature}", other.rsplit_once('.').unwrap().0);
    for bad in [format!("{signed}."), format!("{signed}.AAAA"), swapped] {
        assert_eq!(refused(&verifier, &bad).await, "token_invalid", "{bad}");
    }
}

#[tokio::test]
async fn what_is_not_a_token_is_refused() {
    let tokens = Tokens::new();
    let verifier = verifier(&tokens).await;
    let megabyte = format!("{}{}", tokens.token(CUSTOMER, "customer"), "A".repeat(1024 * 1024));
    for bad in ["", ".", "..", "a.b.c", "bearer", "\u{fffd}.\u{fffd}.\u{fffd}", &megabyte] {
        assert_eq!(refused(&verifier, bad).await, "token_malformed");
    }
}

#[derive(Clone)]
struct App(Arc<Verifier>);

impl FromRef<App> for Arc<Verifier> {
    fn from_ref(app: &App) -> Self {
        app.0.clone()
    }
}

#[tokio::test]
async fn the_extractor_takes_one_bearer_header() {
    let tokens = Tokens::new();
    let app = App(Arc::new(verifier(&tokens).await));
    let who = Router::new().route("/", get(async |caller: Caller| caller.subject)).with_state(app);
    let server = Server::start(who).await;
    let good = tokens.token("someone", "admin");
    let ask = async |headers: &[&str]| {
        let mut request = reqwest::Client::new().get(server.url("/"));
        for value in headers {
            request = request.header("authorization", HeaderValue::from_str(value).unwrap());
        }
        let answer = request.send().await.unwrap();
        let challenge = answer.headers().get("www-authenticate").map(|v| v.to_str().unwrap().to_owned());
        (answer.status().as_u16(), challenge.unwrap_or_default(), answer.text().await.unwrap())
    };
    assert_eq!(ask(&[&format!("Bearer {good}")]).await, (200, String::new(), "someone".to_owned()));
    assert_eq!(ask(&[&format!("bearer {good}")]).await.0, 200);
    let (status, challenge, body) = ask(&[]).await;
    assert_eq!((status, challenge.as_str()), (401, "Bearer"));
    assert!(body.contains("\"code\":\"token_missing\""), "{body}");
    for bad in [&["Basic YTpi"][..], &[&good], &[&format!("Bearer {good}"), &format!("Bearer {good}")]] {
        let (status, challenge, body) = ask(bad).await;
        assert_eq!((status, challenge.as_str()), (401, "Bearer error=\"invalid_token\""));
        assert!(body.contains("\"code\":\"token_malformed\""), "{body}");
        assert!(!body.contains(&good), "a token is never repeated");
    }
}

#[tokio::test]
async fn a_new_key_is_found_and_a_withdrawn_one_forgotten_but_not_at_every_token() {
    let (old, new) = (Tokens::new(), Tokens::new());
    let token = new.token(CUSTOMER, "customer");
    let patient = verifier(&old).await;
    let eager = verifier(&old).await.with_refresh_floor(Duration::ZERO);
    assert_eq!(refused(&eager, &token).await, "token_invalid");
    old.write_jwks(&[new.jwk()]);
    assert!(eager.verify(&token).await.is_ok());
    assert_eq!(refused(&eager, &old.token(CUSTOMER, "customer")).await, "token_invalid");
    assert_eq!(refused(&patient, &token).await, "token_invalid");
    assert!(patient.verify(&old.token(CUSTOMER, "customer")).await.is_ok());
    // A set that can not be read leaves the keys as they are.
    std::fs::write(old.jwks_path(), "{").unwrap();
    assert_eq!(refused(&eager, &old.token(CUSTOMER, "customer")).await, "token_invalid");
    assert!(eager.verify(&token).await.is_ok());
}

#[tokio::test]
async fn a_token_that_was_good_is_refused_once_its_key_is_withdrawn_or_replaced() {
    let (tokens, other) = (Tokens::new(), Tokens::new());
    let verifier = verifier(&tokens).await.with_refresh_floor(Duration::ZERO);
    let token = tokens.token(CUSTOMER, "customer");
    for _ in 0..2 {
        assert!(verifier.verify(&token).await.is_ok(), "the second time it is known");
    }
    // The same key id, another key.
    let mut replaced = other.jwk();
    replaced["kid"] = json!(tokens.kid());
    tokens.write_jwks(&[replaced, other.jwk()]);
    // An unknown key id has the set read again.
    assert!(verifier.verify(&other.token(CUSTOMER, "customer")).await.is_ok());
    assert_eq!(refused(&verifier, &token).await, "token_invalid");
    tokens.write_jwks(&[tokens.jwk()]);
    assert_eq!(refused(&verifier, &bent_header(&tokens, json!({"kid": "nobody"}))).await, "token_invalid");
    assert!(verifier.verify(&token).await.is_ok(), "its key is back");
    tokens.write_jwks(&[other.jwk()]);
    assert_eq!(refused(&verifier, &bent_header(&tokens, json!({"kid": "nobody"}))).await, "token_invalid");
    assert_eq!(refused(&verifier, &token).await, "token_invalid");
}

#[tokio::test]
async fn a_token_expires_also_when_it_is_known() {
    let tokens = Tokens::new();
    let verifier = verifier(&tokens).await;
    let now = i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()).unwrap();
    // The leeway is five seconds: it holds for as long.
    let token = bent_claims(&tokens, json!({"exp": now}));
    assert!(verifier.verify(&token).await.is_ok());
    let refusal = eventually(Duration::from_secs(60), async || verifier.verify(&token).await.err()).await;
    assert_eq!(refusal.code, "token_expired");
}

#[tokio::test]
async fn keys_of_others_do_not_crowd_ours_out() {
    let tokens = Tokens::new();
    let mut keys: Vec<Value> = (0..40)
        .map(|number| json!({"kty": "RSA", "kid": number.to_string(), "n": "AQAB", "e": "AQAB"}))
        .collect();
    keys.push(tokens.jwk());
    tokens.write_jwks(&keys);
    assert!(verifier(&tokens).await.verify(&tokens.token(CUSTOMER, "customer")).await.is_ok());
}

#[tokio::test]
async fn keys_come_from_a_url_too() {
    let tokens = Tokens::new();
    let set = json!({"keys": [{"kty": "RSA", "kid": "other", "n": "AQAB", "e": "AQAB"}, tokens.jwk()]});
    let server = Server::start(Router::new().route("/keys", get(async move || axum::Json(set)))).await;
    let load = async |path: &str| Verifier::load(&server.url(path), Tokens::ISSUER, Tokens::AUDIENCE).await;
    let verifier = load("/keys").await.unwrap();
    assert!(verifier.verify(&tokens.token(CUSTOMER, "customer")).await.is_ok());
    assert!(matches!(load("/nowhere").await, Err(AuthError::Fetch { .. })));
    let missing = Verifier::load("/nowhere/keys.json", "waybill", "waybill").await;
    assert!(matches!(missing, Err(AuthError::Read { .. })));
    tokens.write_jwks(&[json!({"kty": "oct", "kid": tokens.kid(), "k": "AAAA"})]);
    let useless = Verifier::load(tokens.jwks_path().to_str().unwrap(), "waybill", "waybill").await;
    assert!(matches!(useless, Err(AuthError::NoUsableKey { .. })));
}
