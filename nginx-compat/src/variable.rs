//! nginx's variables → templates of config.yaml.

use weir_config::template::Template;

/// What a place in the file adds to nginx's own variables.
#[derive(Debug, Clone, Default)]
pub(crate) struct Known {
    /// Names that the location's regular expression captures.
    pub(crate) captures: Vec<String>,
    /// Variables that are constant here: `proxy_host`, `server_name`, `server_port`.
    pub(crate) constants: Vec<(&'static str, String)>,
    /// Variables that the file sets, each with a template.
    pub(crate) set: Vec<(String, String)>,
}

/// Variables that are one of ours.
const SAME: [(&str, &str); 15] = [
    ("host", "request.host"),
    ("http_host", "header.host"),
    ("remote_addr", "client.ip"),
    ("binary_remote_addr", "client.ip"),
    ("realip_remote_addr", "client.ip"),
    ("scheme", "request.scheme"),
    ("request_uri", "request.target"),
    ("uri", "request.path"),
    ("document_uri", "request.path"),
    ("args", "request.query"),
    ("query_string", "request.query"),
    ("request_method", "request.method"),
    ("request_id", "request.id"),
    ("content_type", "header.content-type"),
    ("content_length", "header.content-length"),
];

/// The template that means what `text` means in nginx.
///
/// # Errors
/// What to do about the first variable that has no counterpart.
pub(crate) fn template(text: &str, known: &Known) -> Result<Template, String> {
    let written = translated(text, known)?;
    written.parse().map_err(|cause| format!("write it by hand: {cause}"))
}

/// A key: values that touch in nginx are kept apart by a `:`, so that no two requests share a key by chance.
///
/// # Errors
/// As [`template`].
pub(crate) fn key(text: &str, known: &Known) -> Result<Template, String> {
    let written = translated(text, known)?.replace("}${", "}:${");
    written.parse().map_err(|cause| format!("write it by hand: {cause}"))
}

/// Whether `text` has variables at all.
pub(crate) fn is_constant(text: &str) -> bool {
    !text.contains('$')
}

fn translated(text: &str, known: &Known) -> Result<String, String> {
    // The usual long way to say "as the client asked".
    let text = text.replace("$uri$is_args$args", "$request_uri");
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let (name, next) = match after.strip_prefix('{') {
            Some(braced) => braced.split_once('}').ok_or("close the variable's name with `}`")?,
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                after.split_at(end)
            }
        };
        out.push_str(&variable(name, known)?);
        rest = next;
    }
    out.push_str(rest);
    Ok(out)
}

fn variable(name: &str, known: &Known) -> Result<String, String> {
    // The last one counts: a subrequest has some of its own.
    if let Some((_, value)) = known.constants.iter().rev().find(|(constant, _)| *constant == name) {
        return Ok(value.clone());
    }
    if let Some((_, value)) = known.set.iter().find(|(set, _)| set == name) {
        return Ok(value.clone());
    }
    if known.captures.iter().any(|capture| capture == name) {
        return Ok(format!("${{path.{name}}}"));
    }
    if let Some((_, ours)) = SAME.iter().find(|(theirs, _)| *theirs == name) {
        return Ok(format!("${{{ours}}}"));
    }
    // A parameter or cookie keeps its name as written; a field's dashes are underscores in nginx.
    let families = [("arg_", "query"), ("cookie_", "cookie"), ("http_", "header")];
    for (prefix, family) in families {
        if let Some(rest) = name.strip_prefix(prefix).filter(|rest| !rest.is_empty()) {
            let rest = if family == "header" { rest.replace('_', "-") } else { rest.to_owned() };
            return Ok(format!("${{{family}.{rest}}}"));
        }
    }
    Err(match name {
        "" => "write the `$` without a variable by hand in config.yaml".to_owned(),
        "proxy_add_x_forwarded_for" => {
            "use it in X-Forwarded-For only: weir appends the client there".to_owned()
        }
        "is_args" => "write `$request_uri`, or `$uri$is_args$args` together".to_owned(),
        digits if digits.bytes().all(|byte| byte.is_ascii_digit()) => {
            format!("give the group a name, `(?<name>…)`, and write `$name` instead of `${name}`")
        }
        _ => format!("`${name}` has no counterpart in config.yaml: write the value, or leave it out"),
    })
}
