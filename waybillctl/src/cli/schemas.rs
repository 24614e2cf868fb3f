//! `waybillctl schemas ...`

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::Form;
use crate::exit::EXIT_CODES;

#[derive(Debug, Args)]
pub(crate) struct Schemas {
    #[command(subcommand)]
    pub(crate) verb: SchemasVerb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum SchemasVerb {
    /// Check the schemas against ids.json and their golden bytes, and against what was released; changes nothing
    ///
    /// Released is what a schema registry has (--registry), else what is committed (--against, in a git checkout). A
    /// released schema never changes: another version has another id, and versions read each other both ways.
    #[command(after_help = EXIT_CODES)]
    Check(Check),
    /// Register the schemas with a registry, under the ids that the frames carry; shows the plan without --apply
    #[command(after_help = EXIT_CODES)]
    Push(Push),
}

#[derive(Debug, Args)]
pub(crate) struct Check {
    /// Folder of ids.json, <service>/<Message>.avsc and golden/; without it, the contract this program was built with
    #[arg(long, value_name = "FOLDER")]
    pub(crate) schemas: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) registry: RegistryOption,
    /// A git commit whose schemas count as released; may be given several times [default: HEAD, with --schemas]
    #[arg(long, value_name = "COMMIT", conflicts_with = "registry", requires = "schemas")]
    pub(crate) against: Vec<String>,
    #[command(flatten)]
    pub(crate) form: Form,
}

#[derive(Debug, Args)]
pub(crate) struct RegistryOption {
    /// A registry with Confluent's API (Confluent, Karapace, Apicurio)
    #[arg(long, env = "SCHEMA_REGISTRY_URL", value_name = "URL")]
    pub(crate) registry: Option<String>,
    /// Under which subjects schemas are registered
    #[arg(long, value_enum, default_value_t = Subjects::Record)]
    pub(crate) subjects: Subjects,
}

/// Topics carry several messages, so that Confluent's default (`<topic>-value`) does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Subjects {
    /// RecordNameStrategy: waybill.orders.OrderPlaced
    Record,
    /// TopicRecordNameStrategy: orders.events-waybill.orders.OrderPlaced
    TopicRecord,
}

#[derive(Debug, Args)]
pub(crate) struct Push {
    /// Folder as for `schemas check`; without it, the contract this program was built with
    #[arg(long, value_name = "FOLDER")]
    pub(crate) schemas: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) registry: RegistryOption,
    /// Register what is missing
    #[arg(long)]
    pub(crate) apply: bool,
    #[command(flatten)]
    pub(crate) form: Form,
}
