// Package observability checks what an SRE looks at: the dashboard and the
// alerts of the chart, against a real Prometheus that scrapes a real troupe.
//
// Every panel and every alert is taken apart into its expressions, and these into
// their selectors. While troupe works, fails, is cancelled, refused, drained and
// killed, Prometheus is asked again and again until each expression and each
// selector has given something: a metric that was renamed, a label that does not
// match, a quantile that is never a number does not pass.
//
// The package's own test starts five servers on loopback, two of them peers of each other, and a
// Prometheus beside them (Debian's package prometheus). On a cluster, the tests of e2e check the
// same expressions against pods: see Checker.
package observability
