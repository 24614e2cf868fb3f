//! Where the settings come from, kept so that they can be read again.

use std::path::{Path, PathBuf};

use waybill_runtime::config::ConfigError;

use super::Config;

/// The variable that names the file.
pub(super) const FILE_VARIABLE: &str = "OUTBOX_RELAY_CONFIG";

/// The environment as it was at the start, and the file it or an argument names.
#[derive(Clone)]
pub struct Source {
    variables: Vec<(String, String)>,
    file: Option<PathBuf>,
}

impl Source {
    /// `file` wins over the one that `OUTBOX_RELAY_CONFIG` names.
    #[must_use]
    pub fn new(variables: impl IntoIterator<Item = (String, String)>, file: Option<&Path>) -> Self {
        let variables: Vec<(String, String)> =
            variables.into_iter().filter(|(_, value)| !value.trim().is_empty()).collect();
        let named = variables.iter().find(|(name, _)| name == FILE_VARIABLE).map(|(_, path)| path.into());
        let file = file.map(Path::to_path_buf).or(named);
        Self { variables, file }
    }

    /// The settings as the file says now.
    ///
    /// # Errors
    /// [`ConfigError`] with every mistake.
    pub fn read(&self) -> Result<Config, ConfigError> {
        Config::read(self.variables.iter().cloned(), self.file.as_deref())
    }

    /// The file's text now; `None` without a file, empty when it can not be read.
    #[must_use]
    pub fn text(&self) -> Option<String> {
        self.file.as_ref().map(|path| std::fs::read_to_string(path).unwrap_or_default())
    }

    pub(super) fn into_parts(self) -> (Vec<(String, String)>, Option<PathBuf>) {
        (self.variables, self.file)
    }
}
