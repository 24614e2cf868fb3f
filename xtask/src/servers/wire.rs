//! Just enough of PostgreSQL's wire protocol to log in and run simple statements, so that no driver must be compiled.
use std::io::{BufReader, Read as _, Write as _};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};

use super::sasl::Scram;

/// Protocol 3.0.
const PROTOCOL: i32 = 196_608;
/// How long one answer may take, in seconds: making a database copies a template.
const ANSWER_TIMEOUT_S: u64 = 30;
/// The largest message believed, in bytes: statements here answer with a few rows.
const MESSAGE_BYTES_MAX: usize = 16 << 20;
/// Messages of one answer, so that a strange server can not hold us for ever.
const MESSAGES_MAX: usize = 100_000;

/// `postgres://user[:password]@host[:port]/database[?options]`; options are kept and not interpreted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Url {
    user: String,
    password: Option<String>,
    host: String,
    port: u16,
    database: String,
    options: Option<String>,
}

impl Url {
    pub(crate) fn parse(url: &str) -> Result<Self> {
        let shape = || format!("`{url}` is not postgres://user[:password]@host[:port]/database");
        let rest = url
            .strip_prefix("postgres://")
            .or_else(|| url.strip_prefix("postgresql://"))
            .with_context(shape)?;
        let (rest, options) = match rest.split_once('?') {
            Some((rest, options)) => (rest, Some(options.to_owned())),
            None => (rest, None),
        };
        let (login, place) = rest.rsplit_once('@').unwrap_or(("postgres", rest));
        let (address, database) = place.split_once('/').unwrap_or((place, "postgres"));
        let (host, port) = match address.rsplit_once(':') {
            Some((host, port)) => (host, port.parse().with_context(shape)?),
            None => (address, 5432),
        };
        let (user, password) = match login.split_once(':') {
            Some((user, password)) => (user, Some(percent_decode(password).with_context(shape)?)),
            None => (login, None),
        };
        ensure!(!host.is_empty() && !user.is_empty(), shape());
        let database = if database.is_empty() { "postgres" } else { database };
        Ok(Self {
            user: percent_decode(user).with_context(shape)?,
            password,
            host: host.to_owned(),
            port,
            database: database.to_owned(),
            options,
        })
    }
}

/// The same URL for another database of the server; text for a program's environment.
pub(crate) fn with_database(url: &str, database: &str) -> Result<String> {
    Url::parse(url)?;
    let (rest, options) = url.split_once('?').unwrap_or((url, ""));
    let scheme_end = rest.find("://").context("a parsed URL has a scheme")? + 3;
    let server = rest[scheme_end..].split_once('/').map_or(&rest[scheme_end..], |(server, _)| server);
    let options = if options.is_empty() { String::new() } else { format!("?{options}") };
    Ok(format!("{}{server}/{database}{options}", &rest[..scheme_end]))
}

/// The URL as it may be shown: its password is replaced by stars.
pub(crate) fn without_password(url: &str) -> String {
    let login = url.split_once("://").and_then(|(scheme, rest)| Some((scheme, rest.rsplit_once('@')?)));
    match login.and_then(|(scheme, (login, place))| Some((scheme, login.split_once(':')?.0, place))) {
        Some((scheme, user, place)) => format!("{scheme}://{user}:***@{place}"),
        None => url.to_owned(),
    }
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte == b'%' {
            let digits = [rest.next()?, rest.next()?];
            bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
        } else {
            bytes.push(byte);
        }
    }
    String::from_utf8(bytes).ok()
}

/// A row of text columns.
pub(crate) type Row = Vec<Option<String>>;

/// A logged-in connection; dropping it closes it.
pub(crate) struct Connection {
    stream: BufReader<TcpStream>,
}

impl Connection {
    pub(crate) fn open(url: &Url) -> Result<Self> {
        let place = format!("{}:{}", url.host, url.port);
        let mut addresses = place.to_socket_addrs().with_context(|| format!("could not look up {place}"))?;
        let address = addresses.next().with_context(|| format!("{place} has no address"))?;
        let timeout = Duration::from_secs(ANSWER_TIMEOUT_S);
        let stream = TcpStream::connect_timeout(&address, timeout)
            .with_context(|| format!("no connection to {place}"))?;
        stream.set_read_timeout(Some(timeout)).context("could not set a timeout")?;
        let mut connection = Self { stream: BufReader::new(stream) };
        connection.start(url)?;
        Ok(connection)
    }

    /// Runs one statement and returns its rows.
    pub(crate) fn query(&mut self, sql: &str) -> Result<Vec<Row>> {
        self.send(Some(b'Q'), &text(sql))?;
        let mut rows = Vec::new();
        let mut failed = None;
        for _ in 0..MESSAGES_MAX {
            let (kind, body) = self.receive()?;
            match kind {
                b'D' => rows.push(row(&body)?),
                b'E' => failed = Some(error_text(&body)),
                b'Z' => break,
                _ => {}
            }
        }
        match failed {
            Some(error) => bail!("{error}"),
            None => Ok(rows),
        }
    }

    fn start(&mut self, url: &Url) -> Result<()> {
        let mut body = PROTOCOL.to_be_bytes().to_vec();
        for part in ["user", &url.user, "database", &url.database, "application_name", "xtask"] {
            body.extend(text(part));
        }
        body.push(0);
        self.send(None, &body)?;
        let mut scram = None;
        for _ in 0..MESSAGES_MAX {
            let (kind, body) = self.receive()?;
            match kind {
                b'R' => self.authenticate(url, &body, &mut scram)?,
                b'E' => bail!("{}", error_text(&body)),
                b'Z' => return Ok(()),
                _ => {}
            }
        }
        bail!("the server talks and talks and lets nobody in")
    }

    /// One step of the login: none asked, clear text, or SCRAM-SHA-256 in its three steps.
    fn authenticate(&mut self, url: &Url, body: &[u8], scram: &mut Option<Scram>) -> Result<()> {
        let (method, data) = body.split_first_chunk().context("an empty request for a password")?;
        let password =
            || url.password.as_deref().context("the server asks for a password and the URL names none");
        match i32::from_be_bytes(*method) {
            0 => Ok(()),
            3 => self.send(Some(b'p'), &text(password()?)),
            10 => {
                let begun = Scram::begin(password()?);
                let first = begun.first();
                *scram = Some(begun);
                let mut answer = text("SCRAM-SHA-256");
                answer.extend(u32::try_from(first.len()).context("a first message of 4 GB")?.to_be_bytes());
                answer.extend(first.as_bytes());
                self.send(Some(b'p'), &answer)
            }
            11 => {
                let begun = scram.as_mut().context("the server skipped a step of the login")?;
                let answer =
                    begun.answer(std::str::from_utf8(data).context("a challenge that is no text")?)?;
                self.send(Some(b'p'), answer.as_bytes())
            }
            12 => scram.as_ref().context("the server skipped a step of the login")?.check(data),
            other => bail!(
                "the server asks for login method {other}, which xtask does not speak: use trust or scram-sha-256"
            ),
        }
    }

    fn send(&mut self, kind: Option<u8>, body: &[u8]) -> Result<()> {
        let length = u32::try_from(body.len() + 4).context("a message of 4 GB")?;
        let mut message: Vec<u8> = kind.into_iter().collect();
        message.extend(length.to_be_bytes());
        message.extend(body);
        self.stream.get_mut().write_all(&message).context("the connection broke while sending")
    }

    fn receive(&mut self) -> Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.stream.read_exact(&mut head).context("the connection broke while waiting for an answer")?;
        let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
        ensure!((4..=MESSAGE_BYTES_MAX).contains(&length), "what answers there is not PostgreSQL");
        let mut body = vec![0; length - 4];
        self.stream.read_exact(&mut body).context("the connection broke inside an answer")?;
        Ok((head[0], body))
    }
}

fn text(value: &str) -> Vec<u8> {
    let mut bytes = value.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// The columns of a DataRow.
fn row(body: &[u8]) -> Result<Row> {
    let (count, mut rest) = body.split_first_chunk::<2>().context("a row without its length")?;
    let mut columns = Vec::new();
    for _ in 0..u16::from_be_bytes(*count) {
        let (length, after) = rest.split_first_chunk::<4>().context("a column without its length")?;
        rest = after;
        let length = i32::from_be_bytes(*length);
        let Ok(length) = usize::try_from(length) else {
            columns.push(None);
            continue;
        };
        let (value, after) =
            rest.split_at_checked(length).context("a column that is shorter than it says")?;
        columns.push(Some(String::from_utf8_lossy(value).into_owned()));
        rest = after;
    }
    Ok(columns)
}

/// The severity and message of an ErrorResponse.
fn error_text(body: &[u8]) -> String {
    let field = |wanted: u8| {
        let mut fields = body.split(|byte| *byte == 0).filter_map(|field| field.split_first());
        fields
            .find(|(kind, _)| **kind == wanted)
            .map(|(_, value)| String::from_utf8_lossy(value).into_owned())
    };
    format!("{}: {}", field(b'S').unwrap_or_default(), field(b'M').unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_with_and_without_their_optional_parts() {
        let url = Url::parse("postgres://me:p%40ss@db.example:6000/shop?sslmode=disable").unwrap();
        assert_eq!((url.user.as_str(), url.password.as_deref()), ("me", Some("p@ss")));
        assert_eq!((url.host.as_str(), url.port, url.database.as_str()), ("db.example", 6000, "shop"));
        let short = Url::parse("postgres://localhost").unwrap();
        assert_eq!(
            (short.user.as_str(), short.port, short.database.as_str()),
            ("postgres", 5432, "postgres")
        );
        assert!(Url::parse("mysql://localhost").is_err());
        assert!(Url::parse("postgres://me@host:port/db").is_err());
    }

    #[test]
    fn another_database_keeps_the_rest_of_the_url() {
        let url = "postgres://me:p%40ss@h:1/postgres?sslmode=disable";
        assert_eq!(with_database(url, "orders").unwrap(), "postgres://me:p%40ss@h:1/orders?sslmode=disable");
        assert_eq!(with_database("postgres://me@h", "orders").unwrap(), "postgres://me@h/orders");
    }

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(without_password("postgres://me:secret@h:1/db"), "postgres://me:***@h:1/db");
        assert_eq!(without_password("postgres://me@h:1/db"), "postgres://me@h:1/db");
        assert_eq!(without_password("127.0.0.1:9092,127.0.0.1:9093"), "127.0.0.1:9092,127.0.0.1:9093");
    }

    #[test]
    fn rows_and_nulls_are_read_and_cut_ones_refused() {
        let body = [0, 2, 0, 0, 0, 2, b'o', b'k', 0xff, 0xff, 0xff, 0xff];
        assert_eq!(row(&body).unwrap(), vec![Some("ok".to_owned()), None]);
        assert!(row(&body[..7]).is_err());
    }
}
