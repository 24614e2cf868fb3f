//! The services' databases, looked at in read-only transactions of one snapshot each.

use std::str::FromStr as _;

use anyhow::{Context as _, bail};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{ConnectOptions as _, Executor as _};

/// What the session of a look is called.
pub(super) const APPLICATION: &str = "waybillctl-verify";
/// What every look begins with. Nothing can be written; the snapshot is taken by the last statement and stays.
/// A look holds back vacuum, so no statement may take for ever; between two statements a topic is read.
const BEGIN: &str = "begin isolation level repeatable read read only;
    set local statement_timeout = '30min';
    set local lock_timeout = '5s';
    set local idle_in_transaction_session_timeout = 0;
    set local timezone = 'UTC';
    select pg_current_snapshot()";
/// An answer to the first word of a server.
const NEEDED: &str = "orders=postgres://...,inventory=postgres://...,payments=postgres://...";

/// Whose database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Orders,
    Inventory,
    Payments,
}

impl Owner {
    pub(crate) const ALL: [Self; 3] = [Self::Orders, Self::Inventory, Self::Payments];

    /// The service's name, which is its group's too.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Orders => "orders",
            Self::Inventory => "inventory",
            Self::Payments => "payments",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|owner| owner.name() == name)
    }
}

/// Where the three databases are.
#[derive(Debug, Clone)]
pub(crate) struct Databases([PgConnectOptions; 3]);

impl Databases {
    /// Reads `orders=postgres://...,inventory=...,payments=...`, in any order.
    ///
    /// # Errors
    /// What is missing, twice there, or no address. Addresses are not shown: they may hold passwords.
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        let mut found: [Option<PgConnectOptions>; 3] = [None, None, None];
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let Some((name, url)) = entry.split_once('=') else {
                bail!("an entry is no name=address; needed is {NEEDED}");
            };
            let Some(owner) = Owner::named(name.trim()) else {
                bail!("{:?} is no service with a database; needed is {NEEDED}", name.trim());
            };
            let options = PgConnectOptions::from_str(url.trim())
                .with_context(|| format!("the address of {} is not usable", owner.name()))?;
            let options = options.application_name(APPLICATION).disable_statement_logging();
            if found[owner as usize].replace(options).is_some() {
                bail!("{} is there twice", owner.name());
            }
        }
        let missing = |owner: Owner| format!("{} is missing; needed is {NEEDED}", owner.name());
        let [orders, inventory, payments] = found;
        Ok(Self([
            orders.with_context(|| missing(Owner::Orders))?,
            inventory.with_context(|| missing(Owner::Inventory))?,
            payments.with_context(|| missing(Owner::Payments))?,
        ]))
    }

    /// A new connection with a snapshot of now.
    pub(crate) async fn look(&self, owner: Owner) -> anyhow::Result<PgConnection> {
        let connect = async {
            let mut conn = self.0[owner as usize].connect().await?;
            conn.execute(sqlx::raw_sql(BEGIN)).await?;
            Ok::<_, sqlx::Error>(conn)
        };
        connect.await.with_context(|| format!("the database of {} can not be looked at", owner.name()))
    }
}

/// A snapshot of each database, taken one after the other.
pub(crate) struct Looks([PgConnection; 3]);

impl Looks {
    pub(crate) async fn take(databases: &Databases) -> anyhow::Result<Self> {
        let [orders, inventory, payments] = Owner::ALL.map(|owner| databases.look(owner));
        Ok(Self([orders.await?, inventory.await?, payments.await?]))
    }

    pub(crate) fn of(&mut self, owner: Owner) -> &mut PgConnection {
        &mut self.0[owner as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mistake_in_the_addresses_is_named_and_no_password_is_shown() {
        let url = "postgres://me:secret@127.0.0.1/x";
        for (text, said) in [
            (String::new(), "orders is missing"),
            (format!("orders={url},inventory={url}"), "payments is missing"),
            (format!("orders={url},orders={url}"), "orders is there twice"),
            (format!("gateway={url}"), "\"gateway\" is no service"),
            (url.to_owned(), "is no"),
            ("orders=nonsense".to_owned(), "the address of orders is not usable"),
        ] {
            let error = format!("{:#}", Databases::parse(&text).unwrap_err());
            assert!(error.contains(said), "{text}: {error}");
            assert!(!error.contains("secret"), "{error}");
        }
        Databases::parse(&format!("payments={url}, inventory={url}, orders={url}")).unwrap();
    }
}
