//! What no flag may carry: both database URLs, LiteLLM's key, and the token of the status page.
//!
//! Owns their variables, and the file that a variable's sibling with `_FILE` names. No problem it reports repeats a secret.

use std::path::{Path, PathBuf};

use super::{Endpoint, ModelsApi, Secret};

pub(super) const SOURCE_URL: &str = "LITELLM_DATABASE_URL";
pub(super) const TARGET_URL: &str = "WEBUI_DATABASE_URL";
pub(super) const MODELS_URL: &str = "LITELLM_WEBUI_SYNC_LITELLM_URL";
pub(super) const MODELS_KEY: &str = "LITELLM_WEBUI_SYNC_LITELLM_KEY";
pub(super) const MODELS_CA: &str = "LITELLM_WEBUI_SYNC_LITELLM_CA";
pub(super) const HTTP_TOKEN: &str = "LITELLM_WEBUI_SYNC_HTTP_TOKEN";
/// Shorter tokens can be guessed.
const MIN_TOKEN_BYTES: usize = 16;

/// The environment; tests have one of their own.
type Env<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A variable's value. Compose files hand over unset variables as empty ones.
fn set(name: &str, env: Env<'_>) -> Option<String> {
    env(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// Where a value came from, for people, and the value.
type Found = (String, String);

/// The variable's value, or what is in the file that its sibling with `_FILE` names.
fn variable_or_file(variable: &str, env: Env<'_>) -> Result<Option<Found>, String> {
    let file_variable = format!("{variable}_FILE");
    match (set(variable, env), set(&file_variable, env)) {
        (Some(_), Some(_)) => Err(format!("{variable} and {file_variable} are both set; keep one of them")),
        (Some(value), None) => Ok(Some((variable.to_owned(), value))),
        (None, Some(file)) => from_file(format!("{file_variable} ({file})"), Path::new(&file)).map(Some),
        (None, None) => Ok(None),
    }
}

fn from_file(origin: String, file: &Path) -> Result<Found, String> {
    match std::fs::read_to_string(file) {
        Ok(text) => Ok((origin, text)),
        Err(error) => {
            Err(format!("{origin}: cannot read this file: {error}; correct its path or its permissions"))
        }
    }
}

/// Empty is none.
fn secret(variable: &str, env: Env<'_>) -> Result<Option<String>, String> {
    let found = variable_or_file(variable, env)?;
    Ok(found.map(|(_, text)| text.trim().to_owned()).filter(|secret| !secret.is_empty()))
}

/// One database URL: the flag's file, else the variable, else the variable's file.
pub(super) fn endpoint(
    variable: &str,
    flag_file: Option<&Path>,
    env: Env<'_>,
) -> Result<Endpoint, Vec<String>> {
    let found = match flag_file {
        Some(file) => from_file(file.display().to_string(), file).map(Some),
        None => variable_or_file(variable, env),
    };
    let Some((origin, text)) = found.map_err(|problem| vec![problem])? else {
        let product = if variable == SOURCE_URL { "LiteLLM" } else { "Open WebUI" };
        return Err(vec![format!(
            "{variable} is not set; set it to {product}'s DATABASE_URL, or {variable}_FILE to a file that holds it"
        )]);
    };
    Endpoint::parse_with(&text, env)
        .map_err(|found| found.into_iter().map(|problem| format!("{origin}: {problem}")).collect())
}

/// LiteLLM's address and a key that may list its models: both or neither.
pub(super) fn models_api(env: Env<'_>) -> Result<Option<ModelsApi>, String> {
    let (url, key) = match (set(MODELS_URL, env), secret(MODELS_KEY, env)?) {
        (Some(url), Some(key)) => (url, key),
        (None, None) => return Ok(None),
        (Some(_), None) => {
            return Err(format!(
                "{MODELS_URL} is set, but not {MODELS_KEY}; set it to a key that may list the models"
            ));
        }
        (None, Some(_)) => {
            return Err(format!("{MODELS_KEY} is set, but not {MODELS_URL}; set it to LiteLLM's address"));
        }
    };
    let is_plain = |key: &str| key.chars().all(|c| c.is_ascii_graphic());
    let parsed = url.parse::<hyper::Uri>().ok().filter(|url| {
        matches!(url.scheme_str(), Some("http" | "https"))
            && url.host().is_some_and(|host| !host.is_empty())
            && !url.authority().is_some_and(|authority| authority.as_str().contains('@'))
    });
    let ca_file = set(MODELS_CA, env).map(PathBuf::from);
    match parsed {
        Some(url) if is_plain(&key) => Ok(Some(ModelsApi { url, key: Secret::new(key), ca_file })),
        Some(_) => Err(format!("{MODELS_KEY} holds characters no key has; copy it again")),
        None => Err(format!("{MODELS_URL} is no address; write one such as http://litellm:4000")),
    }
}

/// What the status page asks for. It goes into a header, so it is plain text.
pub(super) fn http_token(env: Env<'_>) -> Result<Option<Secret>, String> {
    let Some(token) = secret(HTTP_TOKEN, env)? else { return Ok(None) };
    if token.len() < MIN_TOKEN_BYTES || !token.chars().all(|c| c.is_ascii_graphic()) {
        return Err(format!(
            "{HTTP_TOKEN} must be at least {MIN_TOKEN_BYTES} letters, digits and signs, without spaces; \
             `openssl rand -hex 32` makes one"
        ));
    }
    Ok(Some(Secret::new(token)))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::config::tests::{SOURCE, TARGET, TestFile, load};

    #[test]
    fn a_url_that_is_given_twice_or_cannot_be_read_is_a_problem() {
        let env = [(SOURCE_URL, SOURCE), ("LITELLM_DATABASE_URL_FILE", "f"), (TARGET_URL, TARGET)];
        let all = load(&[], &env).unwrap_err().problems;
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(all[0].contains("are both set"), "{all:?}");
        let env = [(SOURCE_URL, SOURCE), ("WEBUI_DATABASE_URL_FILE", "no-such-file")];
        let all = load(&[], &env).unwrap_err().problems;
        assert_eq!(all.len(), 1, "{all:?}");
        assert!(all[0].starts_with("WEBUI_DATABASE_URL_FILE (no-such-file): cannot read"), "{all:?}");
    }

    #[test]
    fn a_token_comes_from_its_variable_or_its_file_and_is_no_word() {
        let with = |more: &[(&str, &str)]| {
            let mut env = vec![(SOURCE_URL, SOURCE), (TARGET_URL, TARGET)];
            env.extend(more);
            load(&[], &env)
        };
        let file = TestFile::new("token", "zq-0123456789abcdef\n");
        for more in [(HTTP_TOKEN, "zq-0123456789abcdef"), ("LITELLM_WEBUI_SYNC_HTTP_TOKEN_FILE", file.path())]
        {
            let config = with(&[more]).unwrap();
            assert_eq!(config.http_token.as_ref().unwrap().expose(), "zq-0123456789abcdef");
            assert!(!format!("{config:?}").contains("zq-0"));
        }
        assert_eq!(with(&[(HTTP_TOKEN, " ")]).unwrap().http_token, None);
        for more in [
            &[(HTTP_TOKEN, "zq-short")][..],
            &[(HTTP_TOKEN, "zq with spaces in it, and long")],
            &[(HTTP_TOKEN, "zq-0123456789abcdef"), ("LITELLM_WEBUI_SYNC_HTTP_TOKEN_FILE", file.path())],
            &[("LITELLM_WEBUI_SYNC_HTTP_TOKEN_FILE", "no-such-file")],
        ] {
            let problems = with(more).unwrap_err().problems;
            assert!(problems.len() == 1 && !problems[0].contains("zq"), "{problems:?}");
        }
    }

    #[test]
    fn the_models_need_an_address_and_a_key() {
        let with = |more: &[(&str, &str)]| {
            let mut env = vec![(SOURCE_URL, SOURCE), (TARGET_URL, TARGET)];
            env.extend(more);
            load(&[], &env)
        };
        assert_eq!(with(&[]).unwrap().models_api, None);
        let api = with(&[(MODELS_URL, "http://litellm:4000/"), (MODELS_KEY, " sk-zq ")]).unwrap().models_api;
        let api = api.unwrap();
        assert_eq!((api.url.host(), api.key.expose()), (Some("litellm"), "sk-zq"));
        assert!(!format!("{api:?}").contains("sk-zq"));
        for more in [
            &[(MODELS_URL, "http://litellm")][..],
            &[(MODELS_KEY, "sk-zq")],
            &[(MODELS_URL, "litellm:4000"), (MODELS_KEY, "sk-zq")],
            &[(MODELS_URL, "ftp://litellm"), (MODELS_KEY, "sk-zq")],
            &[(MODELS_URL, "http://u:p@litellm"), (MODELS_KEY, "sk-zq")],
            &[(MODELS_URL, "http://litellm"), (MODELS_KEY, "sk\nzq")],
            &[(MODELS_URL, "http://litellm"), ("LITELLM_WEBUI_SYNC_LITELLM_KEY_FILE", "no-such-file")],
        ] {
            let problems = with(more).unwrap_err().problems;
            assert!(problems.len() == 1 && !problems[0].contains("zq"), "{problems:?}");
        }
    }
}
