//! Patterns of real daemons against what unauthenticated and hostile clients make them log.

use regex::Regex;

use super::*;
use crate::engine::maildaemons::Literal;
use crate::engine::message::address;
use Forgery::{Any, OtherAddress};

/// The side conditions of a pattern.
#[derive(Clone, Default)]
struct Conditions {
    once: Vec<String>,
    never: Vec<String>,
    same: Option<[String; 2]>,
    max_length: Option<usize>,
}

const DOVECOT: &str = r"^(?:pop3|imap)-login: (?:Login|Logged in): user=<(?<user>[^<>\n]{1,255})>, method=[A-Z0-9-]+, rip=(?<address>IP), lip=IP(?:, mpid=\d+)?(?:, (?:TLS|secured|SSL))?(?:, TLSv[^,<>]*)?(?:, session=<[^<>]*>)?$";
const DOVECOT_FAILED: &str = r"(?:pop3|imap)-login: (?:Login aborted|Aborted login|Disconnected)(?:: [^\x00-\x1f]{1,200})? \([^\x00-\x1f]{1,200}\): user=<[^\x00-\x1f]{0,80}>(?:, method=[^\x00-\x20a-z]{0,80})?, rip=CLIENT, lip=IP(?:, TLS|, secured)?, session=<[!-~]{1,60}>";
const DOVECOT_LOGIN: &str = r"imap-login: Login: user=<[^\x00-\x1f]{1,80}>, method=[A-Z0-9-]{1,20}, rip=CLIENT, lip=IP, mpid=\d{1,7}, session=<[!-~]{1,60}>";
const COURIER: &str =
    r"^LOGIN, user=(?<user>.{1,255}), ip=\[(?<address>IP)\], port=\[\d{1,5}\](?:, stls=1)?$";
const COURIER_FAILED: &str =
    r"LOGIN FAILED, (?:user=[ -~]{0,900}|method=[!-~]{0,80}), ip=\[CLIENT\](?:, port=\[\d{1,5}\])?";
const COURIER_LOGIN: &str =
    r"LOGIN, user=[^\x00\n]{1,400}, ip=\[CLIENT\], port=\[\d{1,5}\](?:, stls=1)?";
/// A fragment of a line split by the logger: text of the client.
const COURIER_FRAGMENT: &str = r"[ -~]{511}";
const VM_POP3D: &str =
    r"^(?:APOP )?User '(?<user>[^'\n]{1,255})' logged in from (?<address>IP), nmsgs=\d{1,10}$";
const VM_POP3D_FAILED: &str =
    r"(?:APOP )?User '[^\x00\n]{0,500}' - failed auth, from=(?<client>[0-9.]{7,15})";
const PERDITION: &str = r#"^Auth: (?<address>IP):\d+->IP:\d+ client-secure=\S+ authorisation_id=\S+ authentication_id="(?<user>[^"\n]+)" server="[^"]*" protocol=\w+ server-secure=\S+ status="ok"$"#;
const PERDITION_FAILED: &str = r#"Auth: CLIENT:\d{1,5}->IP:\d{1,5} client-secure=[a-z]+ authorisation_id=NONE authentication_id="[^\x00\n]{0,1000}" server="[0-9A-Za-z.:-]{0,100}" protocol=[A-Z0-9]+ server-secure=[a-z]+ status="failed: [^"\n]{1,200}""#;
const IMAPPROXY: &str = r#"^LOGIN: '"?(?<user>[^'"\n]{1,255})"?' \((?<address>IP):\d{1,5}\) on (?:new|existing) sd \[\d+\]$"#;
const IMAPPROXY_FAILED: &str =
    r"LOGIN: '[^\x00]{0,255}' \(CLIENT:\d{1,5}\) failed: [^\x00]{0,300}: NO bad login";
const TEAPOP: &str =
    r"^Successful login for (?<user>\S{1,255}) \[IP\] from \S+ \[(?<address>IP)\]$";
const TEAPOP_LOGIN: &str =
    r"Successful login for [^\x00-\x20]{1,249} \[IP\] from [!-~]{1,255} \[CLIENT\]";
const TPOP3D: &str = r"^fork_child: \[\d+\](?<user>\S{1,255})\((?<address>IP)\): began session for `(?<again>\S{1,255})' with \S+; child PID is \d+$";
const TPOP3D_LOGIN: &str = r"fork_child: \[\d{1,5}\][!-~]{1,500}\((?<client>[0-9.]{7,15})\): began session for `[!-~]{1,500}' with [a-z]+; child PID is \d{1,7}";
const TPOP3D_VERBOSE: &str = r"pop3_parse_command: `[^\x00\n]{0,600}'";

fn expanded(text: &str) -> String {
    text.replace("CLIENT", "(?<client>[0-9A-Fa-f:.]{2,45})").replace("IP", "[0-9A-Fa-f:.]+")
}

fn checked(text: &str, conditions: Conditions) -> Result<CheckedPattern, ExpressionFault> {
    let Conditions { once, never, same, max_length } = conditions;
    let mut pattern =
        maildaemons::Pattern::compile(&expanded(text)).expect("an anchored expression");
    pattern.once = once.into_iter().map(Literal::from).collect();
    pattern.never = never.into_iter().map(Literal::from).collect();
    pattern.same = same;
    pattern.max_length = max_length;
    CheckedPattern::new(pattern)
}

fn proof(text: &str, conditions: Conditions, shape: &str, forgery: Forgery) -> ProofVerdict {
    let shape = CheckedShape::new(&expanded(shape)).expect("a shape");
    prove(&checked(text, conditions).expect("a pattern"), &shape, forgery)
}

fn courier() -> Conditions {
    Conditions { once: vec![", ip=[".into()], max_length: Some(499), ..Conditions::default() }
}

fn tpop3d() -> Conditions {
    Conditions { same: Some(["user".into(), "again".into()]), ..Conditions::default() }
}

#[test]
fn safe_patterns_are_proved() {
    let none = Conditions::default;
    let rows: &[(&str, Conditions, &str, Forgery)] = &[
        (DOVECOT, none(), DOVECOT_FAILED, Any),
        (DOVECOT, none(), DOVECOT_LOGIN, OtherAddress),
        (COURIER, courier(), COURIER_FAILED, Any),
        (COURIER, courier(), COURIER_FRAGMENT, Any),
        (COURIER, courier(), COURIER_LOGIN, OtherAddress),
        (VM_POP3D, none(), VM_POP3D_FAILED, Any),
        (PERDITION, none(), PERDITION_FAILED, Any),
        (IMAPPROXY, none(), IMAPPROXY_FAILED, Any),
        (TEAPOP, none(), TEAPOP_LOGIN, OtherAddress),
        (TPOP3D, tpop3d(), TPOP3D_LOGIN, OtherAddress),
        (TPOP3D, tpop3d(), TPOP3D_VERBOSE, Any),
    ];
    for (text, conditions, of, forgery) in rows {
        let verdict = proof(text, conditions.clone(), of, *forgery);
        assert!(matches!(verdict, ProofVerdict::Proved { .. }), "{text}\n{of}\n{verdict:?}");
    }
}

#[test]
fn weakened_patterns_are_forged() {
    let no = Conditions::default;
    let long = || Conditions { max_length: None, ..courier() };
    let lazy = COURIER.replace(".{1,255}", ".{1,255}?");
    let endless_port = COURIER.replace(r"\d{1,5}", r"\d+").replace("IP", "[0-9a-f:.]{2,45}");
    let loose_session =
        DOVECOT.replace("[^<>]*>)?$", ".*>)?$").replace(r"[^<>\n]{1,255}", ".{1,255}?");
    let anywhere = unanchored(TPOP3D);
    let first_bracket =
        TEAPOP.replace(r"\[IP\] from \S+ \[(?<address>IP)\]$", r"\[(?<address>IP)\]");
    let rows: &[(&str, Conditions, &str, Forgery)] = &[
        (&unanchored(DOVECOT), no(), DOVECOT_FAILED, Any),
        (&loose_session, no(), DOVECOT_LOGIN, OtherAddress),
        (unended(&lazy), no(), COURIER_LOGIN, OtherAddress),
        (&unanchored(COURIER), courier(), COURIER_FAILED, Any),
        (&endless_port, long(), COURIER_FRAGMENT, Any),
        (unended(VM_POP3D), no(), VM_POP3D_FAILED, Any),
        (unended(PERDITION), no(), PERDITION_FAILED, Any),
        (unended(IMAPPROXY), no(), IMAPPROXY_FAILED, Any),
        (&first_bracket, no(), TEAPOP_LOGIN, OtherAddress),
        (unended(&anywhere), tpop3d(), TPOP3D_VERBOSE, Any),
    ];
    for (text, conditions, of, forgery) in rows {
        let verdict = proof(text, conditions.clone(), of, *forgery);
        let ProofVerdict::Forged { message, address: Some(address) } = &verdict else {
            panic!("{text}\n{of}\n{verdict:?}")
        };
        let pattern = Regex::new(&expanded(text)).unwrap();
        assert_eq!(&pattern.captures(message).unwrap()["address"], address, "{message}");
        let shape = Regex::new(&format!("^(?:{})$", expanded(of))).unwrap();
        assert!(shape.is_match(message), "{message}");
        assert!(address::read(address).is_ok(), "{message}");
    }
}

fn unanchored(pattern: &str) -> String {
    pattern.replacen('^', "^(?s:.)*?", 1)
}

fn unended(pattern: &str) -> &str {
    pattern.strip_suffix('$').expect("an anchor")
}

#[test]
fn conditions_are_part_of_the_proof() {
    let once = |text: &str| Conditions { once: vec![text.into()], ..Conditions::default() };
    let never = |text: &str| Conditions { never: vec![text.into()], ..Conditions::default() };
    // Only a second `, ip=[` deceives this pattern.
    let verdict = proof(unended(COURIER), once(", ip=["), COURIER_LOGIN, OtherAddress);
    assert!(matches!(verdict, ProofVerdict::Proved { .. }), "{verdict:?}");
    // A required text that never occurs refuses everything, one that always occurs nothing.
    let weak = |conditions| proof(unended(VM_POP3D), conditions, VM_POP3D_FAILED, Any);
    assert!(matches!(weak(once("\n")), ProofVerdict::Proved { .. }));
    assert!(matches!(weak(once("failed auth")), ProofVerdict::Forged { .. }));
    assert!(matches!(weak(never("failed auth")), ProofVerdict::Proved { .. }));
    assert!(matches!(weak(never("\n")), ProofVerdict::Forged { .. }));
}

#[test]
fn leading_blanks_count_but_are_not_matched() {
    let short = || Conditions { max_length: Some(15), ..Conditions::default() };
    let verdict = proof("^in (?<user>[a-z]+)$", short(), " [ -~]{9}", Any);
    assert!(matches!(&verdict, ProofVerdict::Forged { message, .. } if message.len() == 10));
    let verdict = proof("^in (?<user>[a-z]+)$", short(), "[ -~]{16}", Any);
    assert!(matches!(verdict, ProofVerdict::Proved { .. }), "they count");
}

#[test]
fn undecided_is_not_proved() {
    let none = Conditions::default;
    let same = Conditions { same: Some(["a".into(), "b".into()]), ..none() };
    let by_pattern = NoForgery::ByPattern;
    let rows = [
        (
            proof("^(?<a>x+)-(?<b>[xy]+)$", same, "x{2}-x{3}", Any),
            by_pattern(maildaemons::Refusal::Contradiction),
        ),
        (proof("^u=(?<user>.*)$", none(), "u=", Any), by_pattern(maildaemons::Refusal::EmptyUser)),
        (
            proof("^(?<address>IP)$", none(), "[a-f]{4}", Any),
            by_pattern(maildaemons::Refusal::Address(address::NotAClient::Malformed)),
        ),
        // The matcher takes the last ` ip=`, but the search tries all parses.
        (
            proof(
                "^user=(?<user>.+) ip=(?<address>IP)(?: .*)?$",
                none(),
                r"user=[ -~]{1,40} ip=(?<client>192\.0\.2\.7)",
                OtherAddress,
            ),
            NoForgery::OwnAddress,
        ),
        // The matcher never sees blanks at the beginning.
        (proof("^ in (?<user>[a-z]+)$", none(), " in joe", Any), NoForgery::Unmatched),
        (
            proof(
                "^in (?:from (?<address>IP)|by [0-9.]+)$",
                none(),
                r"in by (?<client>[0-9.]{7})",
                OtherAddress,
            ),
            NoForgery::NoAddress,
        ),
    ];
    for (verdict, expected) in rows {
        let ProofVerdict::Undecided(Doubt::Refused { refusal, .. }) = &verdict else {
            panic!("{verdict:?}")
        };
        assert_eq!(*refusal, expected, "{verdict:?}");
    }
    // Both begin to count at any byte, so each number of one meets each number of the other.
    let wide = "^a*a{1500}";
    let verdict = proof(&format!("{wide}1$"), none(), &format!("{wide}2$"), Any);
    let ProofVerdict::Undecided(doubt @ Doubt::TooLarge) = verdict else { panic!("{verdict:?}") };
    assert_eq!(
        doubt.to_string(),
        "pattern and shape together are too large to search; use smaller bounds"
    );
}

#[test]
fn a_pattern_that_matches_nothing_is_proved() {
    let none = Conditions::default;
    let anything = r"(?s:.)*";
    let verdict = proof("^in [a&&b] (?<address>IP)$", none(), anything, Any);
    assert!(matches!(verdict, ProofVerdict::Proved { .. }), "{verdict:?}");
    let verdict = proof("^in (?:[a&&b]|x) (?<address>IP)$", none(), anything, Any);
    assert!(matches!(verdict, ProofVerdict::Forged { .. }), "{verdict:?}");
}

#[test]
fn a_pattern_without_an_address_cannot_forge_one() {
    let none = Conditions::default;
    let half = r"^User '(?<user>[^']{1,255})' logged in$";
    let any = r"User '.{1,80}' logged in";
    assert_eq!(proof(half, none(), any, OtherAddress), ProofVerdict::Proved { states: 0 });
    let verdict = proof(half, none(), any, Any);
    assert!(matches!(verdict, ProofVerdict::Forged { address: None, .. }), "{verdict:?}");
    let connect = r"^Connect from (?<address>IP)$";
    let verdict = proof(connect, none(), "Connect from [0-9.]{7,15}", OtherAddress);
    assert!(matches!(verdict, ProofVerdict::Forged { .. }), "no client group");
}

#[test]
fn expressions_that_cannot_be_analysed_are_faults() {
    let none = Conditions::default;
    let once = |text: &str| Conditions { once: vec![text.into()], ..Conditions::default() };
    let many = Conditions { never: vec!["a".repeat(64); 4], ..none() };
    let rows = [
        (checked(r"^a\b$", none()), ExpressionFault::Assertion),
        (checked(r"^a(?m:$)", none()), ExpressionFault::Assertion),
        (checked(r"^(?:(?:a?){100}){100}$", none()), ExpressionFault::TooLarge),
        (checked("^a$", once("")), ExpressionFault::Quantity(String::new())),
        (checked("^a$", once(&"x".repeat(65))), ExpressionFault::Quantity("x".repeat(65))),
        (checked("^a$", many), ExpressionFault::TooLarge),
    ];
    for (checked, expected) in rows {
        assert_eq!(checked.err(), Some(expected));
    }
    let unclosed = CheckedShape::new("(a").err().expect("a fault").to_string();
    assert!(unclosed.starts_with("not a valid regular expression: regex parse error"));
    assert!(unclosed.ends_with("unclosed group"), "{unclosed}");
    assert_eq!(CheckedShape::new(r"\ba").err(), Some(ExpressionFault::Assertion));
    assert_eq!(CheckedShape::new(r"\w{255}{255}").err(), Some(ExpressionFault::TooLarge));
}
