//! What `isle daemon` is told about containers that say nothing of it, in dockerd's flags.

use crate::text::parse_bytes;
use anyhow::{Context, anyhow, bail};
use clap::{ArgAction, Args};
use model::container::LogConfig;
use model::daemon::ContainerDefaults;
use model::spec::Ulimit;

#[derive(Args)]
pub struct ContainerFlags {
    /// Where containers' output goes: json-file, local or none
    #[arg(long, value_name = "DRIVER", default_value = "json-file")]
    log_driver: String,
    /// Option of that driver (KEY=VALUE); may be given several times
    #[arg(long, value_name = "OPTION")]
    log_opt: Vec<String>,
    /// Limit of containers' processes (NAME=SOFT[:HARD]); may be given several times
    #[arg(long, value_name = "LIMIT")]
    default_ulimit: Vec<String>,
    /// Size of containers' /dev/shm
    #[arg(long, value_name = "BYTES")]
    default_shm_size: Option<String>,
    /// Containers have an init that forwards signals and reaps processes
    #[arg(long, action = ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    init: bool,
    /// Containers' processes gain no privileges
    #[arg(long, action = ArgAction::Set, default_value_t = false, num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    no_new_privileges: bool,
    /// What starts containers: isle, or runc
    #[arg(long, value_name = "RUNTIME", default_value = "isle")]
    default_runtime: String,
    /// Cgroup that containers' are in
    #[arg(long, value_name = "CGROUP", default_value = "")]
    cgroup_parent: String,
}

impl ContainerFlags {
    /// # Errors
    /// A text says nothing, or nobody knows the driver or its option.
    pub fn defaults(&self) -> anyhow::Result<ContainerDefaults> {
        if !model::logging::is_driver(&self.log_driver) {
            bail!("logger: no log driver named '{}' is registered", self.log_driver);
        }
        if !model::create::is_runtime(&self.default_runtime) {
            bail!("specified default runtime '{}' does not exist: isle and runc do", self.default_runtime);
        }
        let option = |text: &String| {
            let (key, value) =
                text.split_once('=').with_context(|| format!("invalid --log-opt {text:?}: it must be KEY=VALUE"))?;
            Ok((key.to_owned(), value.to_owned()))
        };
        let limit = |text: &String| {
            let limit: model::spec::Ulimit =
                text.parse().with_context(|| format!("invalid --default-ulimit {text:?}"))?;
            Ok(Ulimit { name: limit.name, soft: limit.soft, hard: limit.hard })
        };
        let mut defaults = ContainerDefaults {
            log: LogConfig {
                driver: self.log_driver.clone(),
                config: self.log_opt.iter().map(option).collect::<anyhow::Result<_>>()?,
            },
            ulimits: self.default_ulimit.iter().map(limit).collect::<anyhow::Result<_>>()?,
            init: self.init,
            no_new_privileges: self.no_new_privileges,
            cgroup_parent: self.cgroup_parent.clone(),
            runtime: self.default_runtime.clone(),
            ..ContainerDefaults::default()
        };
        if let Some(wrong) = model::logging::wrong_option(&defaults.log) {
            bail!("{wrong}");
        }
        if let Some(size) = &self.default_shm_size {
            defaults.shm_size = parse_bytes(size).map_err(|e| anyhow!("invalid --default-shm-size: {e}"))?;
        }
        Ok(defaults)
    }
}
