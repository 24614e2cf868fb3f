//! Stand-in processes under the supervisor: killed ones come back, stubborn ones are killed, none is left.
use std::fs;

use super::*;
use crate::instance::Instance;
use crate::instance::tests::scratch;
use crate::state::State;

/// How long a test waits for something that should happen at once, in seconds.
const WAIT_S: u64 = 60;

fn stand_in(instance: &Instance, name: &str, script: &str, stop_timeout: Duration) -> Spec {
    let program = Program {
        path: PathBuf::from("sh"),
        args: vec!["-c".into(), script.into()],
        env: Vec::new(),
        cwd: instance.dir().to_path_buf(),
        account: None,
    };
    spec(name, program, &instance.log(name), stop_timeout)
}

fn supervisor(instance: &Instance) -> (Supervisor, Board) {
    let board = Board::open(instance).unwrap();
    (Supervisor::new(Launcher::Direct, board.clone()), board)
}

fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + Duration::from_secs(WAIT_S);
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain for {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn running(instance: &Instance, name: &str) -> Option<ProcessId> {
    let state = State::read(instance).unwrap()?;
    state.processes.get(name).map(|running| running.process.clone()).filter(ProcessId::alive)
}

#[test]
fn a_killed_process_is_started_again_and_stops_when_asked() {
    let instance = scratch("restart");
    let _owned = instance.own().unwrap();
    let (supervisor, _) = supervisor(&instance);
    let kind = Duration::from_secs(WAIT_S);
    supervisor.start(stand_in(&instance, "orders", "exec sleep 600", kind)).unwrap();

    let first = wait_for("the first start", || running(&instance, "orders"));
    first.signal(Signal::SIGKILL);
    let second = wait_for("the second start", || running(&instance, "orders").filter(|id| *id != first));
    assert!(!first.alive());

    supervisor.stop(&["orders"], || false);
    supervisor.join();
    assert!(!second.alive(), "nothing is left behind");
    assert!(State::read(&instance).unwrap().unwrap().processes.is_empty());
    fs::remove_dir_all(instance.dir()).unwrap();
}

#[test]
fn a_stubborn_process_is_killed_with_its_group() {
    let instance = scratch("stubborn");
    let _owned = instance.own().unwrap();
    let (supervisor, _) = supervisor(&instance);
    let script = "trap '' TERM; sleep 600 & echo $!; while :; do wait; done";
    supervisor.start(stand_in(&instance, "relay", script, Duration::from_millis(200))).unwrap();
    let leader = wait_for("the leader", || running(&instance, "relay"));
    let follower =
        wait_for("its child", || fs::read_to_string(instance.log("relay")).ok()?.trim().parse().ok());
    let follower = ProcessId::of(follower).unwrap();

    supervisor.stop(&["relay"], || false);
    supervisor.join();
    assert!(!leader.alive());
    assert!(follower.wait_gone(Duration::from_secs(WAIT_S)), "the group went with its leader");
    fs::remove_dir_all(instance.dir()).unwrap();
}

#[test]
fn a_process_that_never_comes_up_is_given_up_with_its_last_words() {
    let instance = scratch("hopeless");
    let _owned = instance.own().unwrap();
    let (supervisor, _) = supervisor(&instance);
    let spec = stand_in(&instance, "payments", "echo bad configuration; exit 2", Duration::from_secs(1));
    supervisor.start(spec).unwrap();
    let error = wait_for("giving up", || supervisor.check_early_deaths("payments").err());
    assert!(error.to_string().contains("bad configuration"), "{error}");
    supervisor.stop(&["payments"], || false);
    supervisor.join();
    fs::remove_dir_all(instance.dir()).unwrap();
}

#[test]
fn pauses_double_up_to_their_bound() {
    let pauses: Vec<u128> = (1..=8).map(|deaths| backoff(deaths).as_millis()).collect();
    assert_eq!(pauses, [300, 600, 1_200, 2_400, 4_800, 9_600, 10_000, 10_000]);
}
