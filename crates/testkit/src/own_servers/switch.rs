//! A fixed address in front of a server that changes: clients are sent on to whoever is the present one.

use std::sync::{Arc, Mutex};

use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

/// Connections it carries at once: a test's, not a service's.
const CONNECTIONS_MAX: usize = 256;

/// Listens on loopback and forwards every new connection to its present target; as a proxy or a floating address
/// does in front of a pair of databases.
#[derive(Debug)]
pub struct TcpSwitch {
    port: u16,
    state: Arc<Mutex<State>>,
    task: JoinHandle<()>,
}

#[derive(Debug)]
struct State {
    /// `None`: connections are refused.
    target: Option<u16>,
    connections: JoinSet<()>,
    /// Dropped when the connections there are fall silent.
    carried: watch::Sender<()>,
}

impl TcpSwitch {
    /// Forwards to this port of loopback.
    ///
    /// # Panics
    /// When no port can be had.
    pub async fn to(port: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port of loopback");
        let own = listener.local_addr().expect("a bound listener has an address").port();
        let state =
            State { target: Some(port), connections: JoinSet::new(), carried: watch::Sender::new(()) };
        let state = Arc::new(Mutex::new(state));
        let task = tokio::spawn(accept(listener, Arc::clone(&state)));
        Self { port: own, state, task }
    }

    /// In front of a server of loopback that a URL names; and the URL that goes through it.
    ///
    /// # Panics
    /// When no port can be had, or the URL names none.
    pub async fn in_front_of(url: &str) -> (Self, String) {
        let mut through = reqwest::Url::parse(url).expect("a URL");
        let switch = Self::to(through.port().expect("a URL with a port")).await;
        through.set_port(Some(switch.port)).expect("a URL with a host");
        (switch, through.into())
    }

    /// The port of loopback it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Breaks every connection and forwards new ones to another port, or to nobody.
    ///
    /// # Panics
    /// Never, unless a task of it did.
    pub fn turn_to(&self, port: Option<u16>) {
        let mut state = self.state.lock().expect("no panic while held");
        state.target = port;
        state.connections.abort_all();
    }

    /// Carries nothing more on the connections there are, and tells neither end: as a network does that forgot them. New
    /// ones are forwarded as before.
    ///
    /// # Panics
    /// Never, unless a task of it did.
    pub fn fall_silent(&self) {
        self.state.lock().expect("no panic while held").carried = watch::Sender::new(());
    }
}

impl Drop for TcpSwitch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<Mutex<State>>) {
    while let Ok((mut client, _)) = listener.accept().await {
        let mut state = state.lock().expect("no panic while held");
        while state.connections.try_join_next().is_some() {}
        let Some(target) = state.target else { continue };
        if state.connections.len() >= CONNECTIONS_MAX {
            continue;
        }
        let mut carried = state.carried.subscribe();
        state.connections.spawn(async move {
            let Ok(mut server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
            tokio::select! {
                // Either side's end ends both.
                _ = copy_bidirectional(&mut client, &mut server) => {}
                _ = carried.changed() => std::future::pending().await,
            }
        });
    }
}
