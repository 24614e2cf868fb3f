//! Another Avro implementation (Python's fastavro) reads the same golden bytes to the same values.

use std::process::Command;

use crate::schemas;

#[test]
fn fastavro_reads_the_golden_bytes() {
    let script = schemas().join("verify.py");
    let run = match Command::new("python3").arg(&script).arg("golden").output() {
        Ok(run) => run,
        Err(error) => panic!(
            "python3 can not be run ({error}): this test reads our bytes with Python's fastavro; \
             on Debian and Ubuntu install it with `apt-get install python3 python3-venv`"
        ),
    };
    let said = String::from_utf8_lossy(&run.stdout);
    assert!(
        run.status.success(),
        "schemas/verify.py golden failed ({}):\n{said}{}",
        run.status,
        String::from_utf8_lossy(&run.stderr)
    );
    let expected = format!("{} messages read with fastavro", waybill_events::KNOWN.len());
    assert!(said.starts_with(&expected), "{said}");
}
