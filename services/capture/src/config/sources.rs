//! Where options come from: the command line before the environment, that before the file, that before what is built in.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fmt::Write as _,
    fs,
    io::IsTerminal as _,
    path::Path,
};

use clap::{Arg, ArgMatches, Command, CommandFactory as _, FromArgMatches as _, error::ErrorKind, parser::ValueSource};
use serde_json::Value;

use super::{Config, Output};

/// The largest file of options.
const MAX_FILE_BYTES: u64 = 1 << 20;
/// Options that say what to do now: they have no place in a file.
const ACTIONS: [&str; 6] = ["config", "print-config", "check", "probe", "help", "version"];

/// The options of this process. A bad one ends it with 64 and the option's name.
#[must_use]
pub fn load() -> Config {
    match read(std::env::args_os().collect()) {
        Ok(Loaded { config, printed }) if config.print_config => {
            print!("{printed}");
            std::process::exit(0)
        }
        Ok(Loaded { config, .. }) => config,
        Err(error) => {
            // Printing fails only where nobody can read it.
            let _printed = error.print();
            std::process::exit(if error.use_stderr() { i32::from(weir_service::EX_USAGE) } else { 0 })
        }
    }
}

/// The options as they are now: the file may have changed since the start.
pub fn reload() -> Result<Config, clap::Error> {
    read(std::env::args_os().collect()).map(|loaded| loaded.config)
}

struct Loaded {
    config: Config,
    /// As a file that would give the same options.
    printed: String,
}

fn read(arguments: Vec<OsString>) -> Result<Loaded, clap::Error> {
    let mut command = Config::command();
    let path = command.clone().ignore_errors(true).try_get_matches_from(&arguments).ok();
    let path = path.as_ref().and_then(|matches| matches.get_one::<std::path::PathBuf>("config"));
    let mut in_file = BTreeSet::new();
    if let Some(path) = path {
        let values = read_file(path).map_err(|reason| wrong(&mut command, "config", path.display(), &reason))?;
        for (name, values) in values {
            let id = option(&command, &name).map(|option| option.get_id().clone()).ok_or_else(|| {
                wrong(&mut Config::command(), "config", path.display(), &format!("there is no option {name:?}"))
            })?;
            in_file.insert(id.to_string());
            command = command.mut_arg(id, |option| option.default_values(values));
        }
    }
    let matches = command.clone().try_get_matches_from(arguments)?;
    let mut config = Config::from_arg_matches(&matches)?;
    if let Err(error) = config.filter() {
        let crate::Error::Filter { option, source } = &error else { unreachable!("a filter fails in one way") };
        return Err(wrong(&mut command, option, &config.include, &source.to_string()));
    }
    if config.output == Some(Output::Parquet) && config.file.is_none() {
        return Err(command.error(ErrorKind::MissingRequiredArgument, "--output parquet needs --file <FILE>"));
    }
    let given = |id: &str| {
        in_file.contains(id) || matches.value_source(id).is_some_and(|source| source != ValueSource::DefaultValue)
    };
    config.output = config.output.or_else(|| Some(usual_output(given("nats_url"), &config)));
    if config.on_demand && config.output != Some(Output::Nats) {
        return Err(
            command.error(ErrorKind::ArgumentConflict, "--on-demand is for a part of Weir: it needs --nats-url")
        );
    }
    let printed = print(&command, &matches, &in_file);
    Ok(Loaded { config, printed })
}

/// Where records go if nobody says it.
fn usual_output(nats: bool, config: &Config) -> Output {
    if nats {
        Output::Nats
    } else if config.file.is_none() && std::io::stdout().is_terminal() {
        Output::Live
    } else {
        Output::Lines
    }
}

fn wrong(command: &mut Command, option: &str, value: impl std::fmt::Display, reason: &str) -> clap::Error {
    command.error(ErrorKind::ValueValidation, format!("invalid value '{value}' for '--{option}': {reason}"))
}

/// The option of this long name, with `_` for `-` if one likes.
fn option<'a>(command: &'a Command, name: &str) -> Option<&'a Arg> {
    let name = name.replace('_', "-");
    let found = |option: &&Arg| option.get_long() == Some(name.as_str());
    command.get_arguments().find(found).filter(|_| !ACTIONS.contains(&name.as_str()))
}

fn read_file(path: &Path) -> Result<BTreeMap<String, Vec<String>>, String> {
    let length = fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > MAX_FILE_BYTES {
        return Err(format!("it has more than {MAX_FILE_BYTES} bytes"));
    }
    let text = fs::read_to_string(path).map_err(|error| error.to_string())?;
    if text.trim().is_empty() {
        return Ok(BTreeMap::new());
    }
    let values: BTreeMap<String, Value> = serde_saphyr::from_str(&text).map_err(|error| error.to_string())?;
    values.into_iter().map(|(name, value)| Ok((name.clone(), texts(&name, value)?))).collect()
}

/// A value as it would stand on the command line.
fn texts(name: &str, value: Value) -> Result<Vec<String>, String> {
    match value {
        Value::String(text) => Ok(vec![text]),
        Value::Number(number) => Ok(vec![number.to_string()]),
        Value::Bool(value) => Ok(vec![value.to_string()]),
        Value::Array(values) => {
            let lists = values.into_iter().map(|value| texts(name, value)).collect::<Result<Vec<_>, _>>()?;
            Ok(lists.concat())
        }
        Value::Null | Value::Object(_) => Err(format!("{name} has no value that an option can have")),
    }
}

fn print(command: &Command, matches: &ArgMatches, in_file: &BTreeSet<String>) -> String {
    let mut text = String::new();
    for option in command.get_arguments() {
        let Some(name) = option.get_long().filter(|name| !ACTIONS.contains(name)) else { continue };
        let id = option.get_id().as_str();
        let source = match matches.value_source(id) {
            Some(ValueSource::CommandLine) => "flag",
            Some(ValueSource::EnvVariable) => "environment",
            Some(_) if in_file.contains(id) => "file",
            Some(_) => "default",
            None => continue,
        };
        // What may hold a password is not shown.
        let value = if option.is_hide_env_values_set() && source != "default" {
            Value::String("(not shown)".into())
        } else {
            let raw = matches.get_raw(id).into_iter().flatten();
            let mut values: Vec<Value> = raw.map(|value| Value::String(value.to_string_lossy().into_owned())).collect();
            let is_list = option.get_value_delimiter().is_some();
            if is_list || values.len() != 1 { Value::Array(values) } else { values.remove(0) }
        };
        // JSON is YAML. Writing to a String cannot fail.
        let _written = writeln!(text, "{name}: {value} # {source}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_file(text: &str, flags: &[&str]) -> Result<Loaded, String> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("capture.yaml");
        fs::write(&path, text).unwrap();
        let first = ["weir-capture", "--config", path.to_str().unwrap()];
        let arguments = first.iter().chain(flags).map(OsString::from).collect();
        read(arguments).map_err(|error| error.to_string())
    }

    #[test]
    fn a_flag_weighs_more_than_the_file_and_the_file_more_than_what_is_built_in() {
        let text = "interface: [eth0, 'veth*']\nmax_flows: 500\ndrain-active: 2s\nsample: 4\n";
        let config = with_file(text, &["--sample", "8"]).unwrap().config;
        assert_eq!(config.interfaces, ["eth0", "veth*"]);
        assert_eq!((config.max_flows, config.sample, config.pace().longest.as_secs()), (500, 8, 2));
        assert_eq!(config.drain_ended.as_secs(), 1);
    }

    #[test]
    fn what_is_wrong_in_the_file_is_named() {
        for (text, named) in [
            ("interfaces: eth0", "there is no option \"interfaces\""),
            ("check: true", "there is no option \"check\""),
            ("sample: 0", "--sample <COUNT>"),
            ("idle-tcp: 5", "--idle-tcp <DURATION>"),
            ("include: dst_port = 443", "--include <FILTER>"),
            ("output: xml", "--output <FORM>"),
            ("sample: {a: 1}", "sample has no value"),
            ("- a", "--config"),
            ("output: parquet", "--file"),
            ("on-demand: true", "--nats-url"),
        ] {
            let message = with_file(text, &[]).map(|_| ()).unwrap_err();
            assert!(message.contains(named), "{text}: {message}");
        }
        assert!(read(vec!["weir-capture".into(), "--config".into(), "/nowhere".into()]).is_err());
    }

    #[test]
    fn what_is_printed_gives_the_same_options_again() {
        let text = "exclude: 'port = 22 # \"x\" or port = 23'\n".replace(" # \"x\"", "");
        let first =
            with_file(&text, &["--interface", "a,b", "--sample", "3", "--nats-url", "nats://me:secret@h:1"]).unwrap();
        assert!(!first.printed.contains("secret"), "{}", first.printed);
        assert!(
            first.printed.contains("sample: \"3\" # flag") && first.printed.contains("# file"),
            "{}",
            first.printed
        );
        let kept: Vec<_> = first.printed.lines().filter(|line| !line.contains("not shown")).collect();
        let second = with_file(&kept.join("\n"), &[]).unwrap().config;
        assert_eq!((second.interfaces, second.sample), (first.config.interfaces, 3));
        assert_eq!(second.exclude, first.config.exclude);
    }

    #[test]
    fn records_go_to_nats_where_somebody_names_it() {
        assert_eq!(with_file("nats-url: nats://h:1", &[]).unwrap().config.output, Some(Output::Nats));
        assert_eq!(with_file("", &["--file", "/tmp/x"]).unwrap().config.output, Some(Output::Lines));
        assert_eq!(with_file("", &["--output", "ndjson"]).unwrap().config.output, Some(Output::Ndjson));
    }
}
