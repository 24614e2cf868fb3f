//! docker-compose.kafka.yml is not started by any test: what it says of our programs is held against their code.
use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn compose() -> String {
    read("docker-compose.kafka.yml")
}

/// The lines below `name:` at this depth of the file, without comments.
fn block<'a>(compose: &'a str, depth: usize, name: &str) -> Vec<&'a str> {
    let head = format!("{}{name}:", " ".repeat(depth));
    let below = |line: &&str| line.starts_with(&" ".repeat(depth + 1)) || line.trim().is_empty();
    // Not where it is said in one line what waits for it.
    let is_head = |line: &&str| line.starts_with(&head) && !line.contains('{');
    let lines = compose.lines().skip_while(|line| !is_head(line)).skip(1).take_while(below);
    let lines: Vec<&str> = lines.filter(|line| !line.trim_start().starts_with('#')).collect();
    assert!(!lines.is_empty(), "there is no {head}");
    lines
}

/// What a name below it is set to.
fn value<'a>(lines: &[&'a str], name: &str) -> &'a str {
    let found = lines.iter().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "));
    found.unwrap_or_else(|| panic!("{name} is not set in {lines:#?}"))
}

/// Names that are set in a block: capitals, digits and underscores before a colon.
fn names(lines: &[&str]) -> BTreeSet<String> {
    let is_name = |name: &&str| {
        name.len() > 3 && name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
    };
    let before = lines.iter().filter_map(|line| line.trim().split_once(':').map(|(name, _)| name));
    before.filter(is_name).map(str::to_owned).collect()
}

const SERVICES: [(&str, u16, u16); 3] =
    [("orders", 8083, 9083), ("inventory", 8084, 9084), ("payments", 8085, 9085)];

#[test]
fn every_variable_of_our_programs_is_one_that_they_read() {
    let mut code = String::new();
    for folder in ["crates", "services", "outbox-relay", "waybillctl"] {
        gather(&root().join(folder), &mut code);
    }
    let compose = compose();
    let mut set = names(&block(&compose, 0, "x-service-environment"));
    for name in SERVICES.map(|(name, ..)| name).into_iter().chain(["outbox-relay", "topics-apply"]) {
        set.extend(names(&block(&block(&compose, 2, name).join("\n"), 4, "environment")));
    }
    assert!(set.contains("DATABASE_URL") && set.contains("OUTBOX_RELAY_DATABASES"), "{set:?}");
    for name in set {
        assert!(code.contains(&format!("\"{name}\"")), "{name} is set, and no program reads it");
    }
}

/// The source below a folder, tests left out.
fn gather(folder: &Path, into: &mut String) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let is_test = path.file_name().is_some_and(|name| name == "tests" || name == "target");
        if path.is_dir() && !is_test {
            gather(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            into.push_str(&std::fs::read_to_string(&path).unwrap());
        }
    }
}

#[test]
fn ports_are_those_that_programs_listen_on_and_that_their_defaults_say() {
    let compose = compose();
    let shared = block(&compose, 0, "x-service-environment");
    assert_eq!(value(&shared, "WAYBILL_HTTP_ADDR"), "0.0.0.0:8080");
    assert_eq!(value(&shared, "WAYBILL_OPERATOR_ADDR"), "0.0.0.0:9080");
    for (name, api, operator) in SERVICES {
        let service = block(&compose, 2, name).join("\n");
        let upper = name.to_uppercase();
        assert!(
            service.contains(&format!("\"127.0.0.1:${{WAYBILL_{upper}_PORT:-{api}}}:8080\"")),
            "{service}"
        );
        let operators = format!("\"127.0.0.1:${{WAYBILL_{upper}_OPERATOR_PORT:-{operator}}}:9080\"");
        assert!(service.contains(&operators), "{service}");
        let code = read(&format!("services/{name}/src/config.rs"));
        for port in [api, operator] {
            assert!(code.contains(&format!("\"127.0.0.1:{port}\"")), "{name} listens on another than {port}");
        }
    }
    let relay = block(&compose, 2, "outbox-relay");
    assert_eq!(value(&relay, "WAYBILL_HTTP_ADDR"), "0.0.0.0:8080");
    assert!(relay.join("\n").contains("${WAYBILL_RELAY_PORT:-9100}:8080"), "{relay:?}");
    assert!(read("outbox-relay/src/config/mod.rs").contains("\"127.0.0.1:9100\""));
    assert!(read("deploy/docker/Dockerfile").contains("EXPOSE 8080 9080"));
}

#[test]
fn every_program_is_one_that_the_image_is_built_with_and_each_database_is_made() {
    let (compose, image) = (compose(), read("deploy/docker/Dockerfile"));
    let mut programs = BTreeSet::new();
    for line in compose.lines().filter_map(|line| line.split_once("PROGRAM: ")) {
        programs.insert(line.1.split([' ', '}']).next().unwrap().to_owned());
    }
    let known = ["outbox-relay", "waybill-inventory", "waybill-orders", "waybill-payments", "waybillctl"];
    assert_eq!(programs.iter().map(String::as_str).collect::<Vec<_>>(), known);
    for program in programs {
        assert!(image.contains(&format!("--package {program}")), "{program} is not built");
        assert!(image.contains(&format!("target/release/{program}")), "{program} is not copied");
    }
    let made = block(&compose, 2, "databases").join("\n");
    let relay = value(&block(&compose, 2, "outbox-relay"), "KAFKA_BOOTSTRAP_SERVERS").to_owned();
    assert_eq!(relay, value(&block(&compose, 0, "x-service-environment"), "KAFKA_BOOTSTRAP_SERVERS"));
    assert!(made.contains("for database in orders inventory payments; do"), "{made}");
    for (name, ..) in SERVICES {
        let url = value(&block(&compose, 2, name), "DATABASE_URL").to_owned();
        assert!(url.ends_with(&format!("@postgres:5432/{name}")), "{url}");
        assert!(compose.contains(&format!("{name}={url}")), "the relay reads the database of {name}");
    }
}

/// The registry's health check is a script: it is run against an answer of each kind.
#[test]
fn the_registrys_health_check_tells_a_good_answer_from_a_bad_one() {
    let compose = compose();
    let registry = block(&compose, 2, "schema-registry");
    let script: Vec<&str> = registry
        .iter()
        .skip_while(|line| line.trim() != "- >-")
        .skip(1)
        .take_while(|line| line.starts_with("          "))
        .map(|line| line.trim())
        .collect();
    let script = script.join(" ").replace("$$", "$");
    assert!(script.contains("GET /apis/registry/v3/system/info "), "{script}");
    for (answer, healthy) in [
        ("HTTP/1.0 200 OK", true),
        ("HTTP/1.1 200 OK", true),
        ("HTTP/1.1 503 Service Unavailable", false),
        ("HTTP/1.1 404 Not Found", false),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            stream.write_all(format!("{answer}\r\n\r\n{{}}").as_bytes()).unwrap();
            String::from_utf8_lossy(&request).into_owned()
        });
        let script = script.replace("localhost/8080", &format!("127.0.0.1/{port}"));
        let status = Command::new("bash").args(["-c", &script]).status().unwrap();
        let request = server.join().unwrap();
        assert!(request.ends_with("HTTP/1.0\r\n\r\n"), "{request:?}");
        assert_eq!(status.success(), healthy, "{answer}: {script}");
    }
}
