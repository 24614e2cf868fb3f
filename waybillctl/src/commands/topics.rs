//! `waybillctl topics plan | apply`: the manifest against the brokers.

use std::fmt::Write as _;

use anyhow::Context as _;
use serde::Serialize;
use waybill_events::topics::manifest_parsed;
use waybill_messaging::config;
use waybill_messaging::topics::{Plan, TopicAdmin, TopicPlan, TopicState};

use crate::cli::{Topics, TopicsOptions, TopicsVerb};
use crate::exit::{Exit, Usage};
use crate::output;

/// Does what was asked for.
pub(crate) async fn run(topics: Topics) -> anyhow::Result<Exit> {
    match topics.verb {
        TopicsVerb::Plan(options) => plan(options).await,
        TopicsVerb::Apply(options) => apply(options).await,
    }
}

async fn plan(options: TopicsOptions) -> anyhow::Result<Exit> {
    let manifest = manifest_parsed().context("this program was built with a manifest it can not read")?;
    let admin = connect(&options)?;
    let plan = admin.plan(&manifest, options.replication).await?;
    report(&options, &[], &plan)
}

async fn apply(options: TopicsOptions) -> anyhow::Result<Exit> {
    let manifest = manifest_parsed().context("this program was built with a manifest it can not read")?;
    let admin = connect(&options)?;
    let applied = admin.apply(&manifest, options.replication).await?;
    output::progress(&match applied.created.len() {
        0 => "nothing to create".to_owned(),
        created => format!("created {created} of {} topics", manifest.topics().len()),
    });
    report(&options, &applied.created, &applied.plan)
}

fn connect(options: &TopicsOptions) -> anyhow::Result<TopicAdmin> {
    let kafka = &options.kafka;
    output::progress(&format!("asking the brokers at {}", kafka.bootstrap_servers));
    let settings = config::admin(&kafka.bootstrap_servers, "waybillctl");
    Ok(TopicAdmin::new(&settings, &kafka.prefix).map_err(Usage::of)?)
}

/// Prints what was found and tells the exit code it stands for.
fn report(options: &TopicsOptions, created: &[String], plan: &Plan) -> anyhow::Result<Exit> {
    if options.json {
        output::result(&serde_json::to_string(&Report::new(created, plan))?)?;
    } else {
        output::result(&as_text(created, plan))?;
    }
    Ok(if plan.is_as_declared() { Exit::Done } else { Exit::Differs })
}

/// `--json`, as a contract: fields are added, never changed.
#[derive(Serialize)]
struct Report<'a> {
    /// Whether the brokers have every topic as declared.
    as_declared: bool,
    /// Full names of the topics this run created.
    created: &'a [String],
    topics: Vec<ReportTopic<'a>>,
}

#[derive(Serialize)]
struct ReportTopic<'a> {
    name: &'a str,
    /// `as_declared`, `missing` or `drifted`.
    state: &'static str,
    drifts: Vec<ReportDrift<'a>>,
}

#[derive(Serialize)]
struct ReportDrift<'a> {
    setting: String,
    expected: &'a str,
    found: &'a str,
    mend: String,
}

impl<'a> Report<'a> {
    fn new(created: &'a [String], plan: &'a Plan) -> Self {
        let topics = plan.topics.iter().map(ReportTopic::new).collect();
        Self { as_declared: plan.is_as_declared(), created, topics }
    }
}

impl<'a> ReportTopic<'a> {
    fn new(topic: &'a TopicPlan) -> Self {
        let (state, drifts) = match &topic.state {
            TopicState::AsDeclared => ("as_declared", &[][..]),
            TopicState::Missing => ("missing", &[][..]),
            TopicState::Drifted(drifts) => ("drifted", drifts.as_slice()),
        };
        let drifts = drifts.iter().map(|drift| ReportDrift {
            setting: drift.setting.to_string(),
            expected: &drift.expected,
            found: &drift.found,
            mend: topic.mend(drift),
        });
        Self { name: &topic.name, state, drifts: drifts.collect() }
    }
}

/// One line a topic, indented lines for what is wrong with it, and the sum.
fn as_text(created: &[String], plan: &Plan) -> String {
    let mut text = String::new();
    let (mut missing, mut drifted) = (0, 0);
    for topic in &plan.topics {
        let state = match &topic.state {
            TopicState::AsDeclared if created.contains(&topic.name) => "created",
            TopicState::AsDeclared => "ok",
            TopicState::Missing => {
                missing += 1;
                "missing"
            }
            TopicState::Drifted(_) => {
                drifted += 1;
                "drifted"
            }
        };
        // Writing into a String does not fail.
        let _ = writeln!(text, "{state:<8} {}", topic.name);
        if let TopicState::Drifted(_) = topic.state {
            for problem in topic.problems() {
                let _ = writeln!(text, "         {problem}");
            }
        }
    }
    let declared = plan.topics.len();
    let _ = write!(
        text,
        "{declared} declared: {} as declared, {missing} missing, {drifted} drifted",
        declared - missing - drifted
    );
    if missing > 0 {
        text.push_str("\ncreate what is missing with `waybillctl topics apply` and the same options");
    }
    text
}
