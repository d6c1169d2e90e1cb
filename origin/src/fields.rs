//! Reads bodies and queries field by field, and names every problem at once.
//!
//! A handler takes each field it knows with a *rule* (see [`rule`]); a field that breaks its rule, is missing, or that nobody
//! took, becomes a problem; [`Fields::finish`] gives the value out only when there is none.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, Query, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::refusal::{Problems, Refusal};

/// The fields of one JSON body. Extracting it refuses what is not a JSON object.
#[derive(Debug, Clone)]
pub struct Fields {
    left: Map<String, Value>,
    problems: Problems,
}

/// The parameters of one query; every value is text.
#[derive(Debug)]
pub struct QueryFields(pub Fields);

impl Fields {
    /// A field that must be there, unless `base` has it.
    pub fn required<T: Default>(
        &mut self,
        name: &str,
        base: Option<T>,
        rule: impl FnOnce(Value) -> Result<T, String>,
    ) -> T {
        match (self.left.remove(name), base) {
            (Some(value), _) => self.obey(name, value, rule).unwrap_or_default(),
            (None, Some(base)) => base,
            (None, None) => {
                self.problem(name, "is required");
                T::default()
            }
        }
    }

    /// A field that may be left out: then it is `base`'s, or the type's default.
    pub fn defaulted<T: Default>(
        &mut self,
        name: &str,
        base: Option<T>,
        rule: impl FnOnce(Value) -> Result<T, String>,
    ) -> T {
        self.required(name, Some(base.unwrap_or_default()), rule)
    }

    /// A field that may be left out (then it is `base`'s) or null (then it is nothing).
    pub fn optional<T>(
        &mut self,
        name: &str,
        base: Option<T>,
        rule: impl FnOnce(Value) -> Result<T, String>,
    ) -> Option<T> {
        match self.left.remove(name) {
            None => base,
            Some(Value::Null) => None,
            Some(value) => self.obey(name, value, rule),
        }
    }

    /// SHA-256 of the fields that nobody took yet, the same for a body that is sent again.
    #[must_use]
    pub fn fingerprint(&self, operation: &str) -> [u8; 32] {
        let body = serde_json::to_vec(&self.left).expect("JSON that was read can be written");
        Sha256::new().chain_update(operation).chain_update([0]).chain_update(body).finalize().into()
    }

    /// The fields of each object in the list `name`, 1 to `most`; `take` reads one of them, and its problems are named `name[n].field`.
    pub fn each<T>(&mut self, name: &str, most: usize, take: impl Fn(&mut Self) -> T) -> Vec<T> {
        let Some(Value::Array(list)) = self
            .left
            .remove(name)
            .filter(|list| list.as_array().is_some_and(|l| (1..=most).contains(&l.len())))
        else {
            self.problem(name, &format!("must be a list of 1 to {most} objects"));
            return Vec::new();
        };
        let mut taken = Vec::with_capacity(list.len());
        for (n, value) in list.into_iter().enumerate() {
            let Value::Object(left) = value else {
                self.problem(&format!("{name}[{n}]"), "must be an object");
                continue;
            };
            let mut fields = Self { left, problems: Problems::new() };
            let one = take(&mut fields);
            match fields.finish(one) {
                Ok(one) => taken.push(one),
                Err(problems) => {
                    for (field, problem) in problems {
                        self.problem(&format!("{name}[{n}].{field}"), &problem);
                    }
                }
            }
        }
        taken
    }

    /// Gives `value` out when no field was wrong, missing or unknown.
    ///
    /// # Errors
    /// Every problem, by field.
    pub fn finish<T>(mut self, value: T) -> Result<T, Problems> {
        for (name, _) in std::mem::take(&mut self.left) {
            self.problem(&name, "is not a field we know");
        }
        if self.problems.is_empty() { Ok(value) } else { Err(self.problems) }
    }

    fn obey<T>(
        &mut self,
        name: &str,
        value: Value,
        rule: impl FnOnce(Value) -> Result<T, String>,
    ) -> Option<T> {
        rule(value).map_err(|problem| self.problem(name, &problem)).ok()
    }

    /// Notes what is wrong with a field, beside what its rule says.
    pub fn problem(&mut self, name: &str, problem: &str) {
        // A name is the client's: do not send back more of it than helps.
        let name: String = name.chars().take(64).collect();
        self.problems.insert(name, problem.to_owned());
    }
}

impl<S: Send + Sync> FromRequest<S> for Fields {
    type Rejection = Refusal;

    async fn from_request(request: Request, state: &S) -> Result<Self, Refusal> {
        if !is_json(request.headers()) {
            return Err(Refusal::NotJson);
        }
        let body =
            Bytes::from_request(request, state).await.map_err(|rejection| match rejection.status() {
                StatusCode::PAYLOAD_TOO_LARGE => Refusal::TooLarge,
                _ => Refusal::Malformed,
            })?;
        let left = serde_json::from_slice(&body).map_err(|_| Refusal::Malformed)?;
        Ok(Self { left, problems: Problems::new() })
    }
}

impl<S: Send + Sync> FromRequestParts<S> for QueryFields {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Refusal> {
        let Query(pairs) = Query::<Vec<(String, String)>>::from_request_parts(parts, state)
            .await
            .map_err(|_| Refusal::InvalidQuery(Problems::new()))?;
        let mut fields = Fields { left: Map::new(), problems: Problems::new() };
        for (name, value) in pairs {
            // Two answers to one question: neither is taken.
            if fields.left.insert(name.clone(), Value::String(value)).is_some() {
                fields.problem(&name, "is given twice");
            }
        }
        Ok(Self(fields))
    }
}

/// The id in a path; a garbled one names nothing, like an unknown one.
///
/// # Errors
/// 404.
pub fn parse_id(id: &str) -> Result<Uuid, Refusal> {
    id.parse().map_err(|_| Refusal::NotFound)
}

fn is_json(headers: &HeaderMap) -> bool {
    let declared =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = declared.split(';').next().unwrap_or_default().trim();
    essence.eq_ignore_ascii_case("application/json")
}

/// What a value must be. Each rule is a function from a JSON value to the value, or to the sentence that says what is wrong.
pub mod rule {
    use std::ops::RangeInclusive;

    use axum::http::Uri;
    use jiff::Timestamp;
    use serde_json::Value;
    use uuid::Uuid;

    use crate::database::{Moment, Words};

    /// Text of `length` characters. Control characters other than line breaks and tabs are refused: Postgres cannot
    /// store NUL, and nobody means the others.
    pub fn text(length: RangeInclusive<usize>) -> impl Fn(Value) -> Result<String, String> {
        move |value| {
            let Value::String(text) = value else { return Err("must be text".into()) };
            if !length.contains(&text.chars().count()) {
                return Err(format!("must have {} to {} characters", length.start(), length.end()));
            }
            if text.chars().any(|c| c.is_control() && !"\n\r\t".contains(c)) {
                return Err("must not have control characters".into());
            }
            Ok(text)
        }
    }

    /// A word of 1 to 32 of `a-z`, `0-9`, `-` and `_`: it names a kind, and is an index key.
    pub fn word(value: Value) -> Result<String, String> {
        let word = text(1..=32)(value)?;
        if word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b)) {
            Ok(word)
        } else {
            Err("may only have a-z, 0-9, - and _".into())
        }
    }

    /// At most `most` words of 1 to 64 characters.
    pub fn words(most: usize) -> impl Fn(Value) -> Result<Words, String> {
        move |value| match value {
            Value::Array(list) if list.len() > most => Err(format!("must have at most {most} entries")),
            Value::Array(list) => list
                .into_iter()
                .map(text(1..=64))
                .collect::<Result<_, _>>()
                .map(Words)
                .map_err(|e| format!("each {e}")),
            _ => Err("must be a list of text".into()),
        }
    }

    /// What a query says as text, for rules of numbers and of `true` and `false`.
    pub fn written<T>(rule: impl Fn(Value) -> Result<T, String>) -> impl Fn(Value) -> Result<T, String> {
        move |value| match value.as_str() {
            Some("true") => rule(true.into()),
            Some("false") => rule(false.into()),
            Some(text) => rule(text.parse::<i64>().map_or(Value::Null, Into::into)),
            None => rule(value),
        }
    }

    /// A whole number in `range`; 62.0 is one (JSON Schema, 4.2.3).
    pub fn integer(range: RangeInclusive<i32>) -> impl Fn(Value) -> Result<i32, String> {
        move |value| {
            let whole = value.as_f64().filter(|n| n.fract() == 0.0);
            whole
                // What is too large saturates, and is too large for the next one, too.
                .and_then(|n| i32::try_from(n as i64).ok())
                .filter(|n| range.contains(n))
                .ok_or_else(|| format!("must be a whole number from {} to {}", range.start(), range.end()))
        }
    }

    /// `true` or `false`.
    pub fn yes_or_no(value: Value) -> Result<bool, String> {
        value.as_bool().ok_or_else(|| "must be true or false".into())
    }

    /// One id.
    pub fn id(value: Value) -> Result<Uuid, String> {
        value.as_str().and_then(|id| id.parse().ok()).ok_or_else(|| "must be an id".into())
    }

    /// 1 to `most` different ids.
    pub fn ids(most: usize) -> impl Fn(Value) -> Result<Vec<Uuid>, String> {
        move |value| {
            let list = value.as_array().filter(|list| (1..=most).contains(&list.len()));
            let list = list.ok_or_else(|| format!("must be a list of 1 to {most} ids"))?;
            let mut ids = list
                .iter()
                .cloned()
                .map(id)
                .collect::<Result<Vec<_>, _>>()
                .map_err(|problem| format!("each {problem}"))?;
            ids.sort_unstable();
            ids.dedup();
            Ok(ids)
        }
    }

    /// An instant in RFC 3339, with an offset, in a year that begins with a 2: the parser takes years that Postgres does not, and a
    /// rule about the year as it is written can stand in the document.
    pub fn instant(value: Value) -> Result<Moment, String> {
        let text = value.as_str().filter(|text| text.starts_with('2') && text.find('-') == Some(4));
        let parsed = text.and_then(|text| text.parse::<Timestamp>().ok());
        parsed.map(Moment::cut).ok_or_else(|| "must be an instant like 2030-01-31T12:00:00Z".into())
    }

    /// An absolute http or https URL of at most 2048 characters.
    pub fn url(value: Value) -> Result<String, String> {
        let text = text(1..=2048)(value)?;
        let uri: Option<Uri> = text.parse().ok();
        match uri.as_ref().map(|uri| (uri.scheme_str(), uri.authority().is_some())) {
            Some((Some("http" | "https"), true)) => Ok(text),
            _ => Err("must be an http or https URL".into()),
        }
    }

    /// An e-mail address, in lower case. Only its outline is checked: mail that arrives is the proof.
    pub fn email(value: Value) -> Result<String, String> {
        let email = text(3..=254)(value)?.to_ascii_lowercase();
        let outline = email.split_once('@').is_some_and(|(local, domain)| {
            !local.is_empty() && !domain.is_empty() && !domain.contains('@') && !domain.starts_with('.')
        });
        if outline && email.bytes().all(|b| b.is_ascii_graphic()) {
            Ok(email)
        } else {
            Err("must be an e-mail address".into())
        }
    }

    /// A new password: at least 8 characters (NIST SP 800-63B §5.1.1), at most 256 so that hashing stays bounded.
    pub fn password(value: Value) -> Result<String, String> {
        text(8..=256)(value)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    fn fields(body: Value) -> Fields {
        Fields { left: body.as_object().unwrap().clone(), problems: Problems::new() }
    }

    #[test]
    fn every_problem_is_named_at_once() {
        let mut fields = fields(json!({ "title": "", "score": 101, "surprise": 1 }));
        fields.required("title", None, rule::text(1..=5));
        fields.required("type", None, rule::word);
        fields.optional("score", None, rule::integer(0..=100));
        let problems = fields.finish(()).unwrap_err();
        assert_eq!(problems.keys().collect::<Vec<_>>(), ["score", "surprise", "title", "type"]);
    }

    #[test]
    fn a_field_left_out_keeps_the_base_and_null_clears_it() {
        let mut fields = fields(json!({ "cleared": null }));
        assert_eq!(fields.optional("kept", Some(1), rule::integer(0..=9)), Some(1));
        assert_eq!(fields.optional("cleared", Some(1), rule::integer(0..=9)), None);
        assert_eq!(fields.required("also_kept", Some("x".to_owned()), rule::word), "x");
        fields.finish(()).unwrap();
    }

    #[test]
    fn rules_tell_right_from_wrong() {
        for email in ["a@b", "first.last+tag@example.org"] {
            assert!(rule::email(json!(email)).is_ok(), "{email}");
        }
        for email in ["", "a", "@b", "a@", "a@b@c", "a b@c", "ä@b.org", "a@.b"] {
            assert!(rule::email(json!(email)).is_err(), "{email}");
        }
        for url in ["http://a/b?c", "https://example.org"] {
            assert!(rule::url(json!(url)).is_ok(), "{url}");
        }
        for url in ["javascript:alert(1)", "/relative", "ftp://a/", "https://"] {
            assert!(rule::url(json!(url)).is_err(), "{url}");
        }
        assert!(rule::text(0..=9)(json!("a\nb")).is_ok());
        assert!(rule::text(0..=9)(json!("a\0b")).is_err());
        assert!(rule::instant(json!("2030-01-31T12:00:00+02:00")).is_ok());
        for instant in [
            "2030-01-31",
            "2030-01-31T12:00:00",
            "-009999-01-02T00:00:00Z",
            "1999-12-31T23:59:59Z",
            "20300131T120000Z",
        ] {
            assert!(rule::instant(json!(instant)).is_err(), "{instant}");
        }
        assert!(rule::integer(0..=9)(json!("5")).is_err());
        assert_eq!(rule::integer(0..=9)(json!(5.0)), Ok(5));
        for number in [json!(5.5), json!(10), json!(-1), json!(1e300), json!(4_294_967_296_u64)] {
            assert!(rule::integer(0..=9)(number.clone()).is_err(), "{number}");
        }
        assert_eq!(rule::written(rule::integer(0..=9))(json!("5")), Ok(5));
        assert_eq!(rule::written(rule::yes_or_no)(json!("true")), Ok(true));
        for text in ["", " 5", "5.0", "1e0", "10", "five", "true"] {
            assert!(rule::written(rule::integer(0..=9))(json!(text)).is_err(), "{text}");
        }
        assert!(rule::words(1)(json!(["a", "b"])).is_err());
        assert!(rule::words(2)(json!(["a", 1])).is_err());
    }
}
