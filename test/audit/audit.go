// Package audit judges what the product's own programs wrote and counted while tests ran. An error line, a panic, a container restart
// or a failed reconcile is a finding, unless a test announced it. The package is pure: package collect reads the cluster for it.
package audit

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"
)

// A Source is one container of the product.
type Source struct {
	Namespace, Pod, Container string
}

func (s Source) String() string { return s.Namespace + "/" + s.Pod + " " + s.Container }

// A Kind is a kind of finding.
type Kind string

// The kinds of findings.
const (
	ErrorLine Kind = "error line"
	Panic     Kind = "panic"
	Restart   Kind = "restart"
	Metric    Kind = "metric"
	Unread    Kind = "unread" // what could not be audited
)

// A Finding is one failure of the product's own.
type Finding struct {
	Source
	Kind Kind
	Time time.Time
	Text string
	// Controller is set for the line of a failed reconcile.
	Controller string
}

// An announcement is what a test says will fail.
type announcement struct {
	test, reason string
	pattern      *regexp.Regexp
	namespace    string    // only findings of this namespace; empty: any
	from, to     time.Time // to is zero while the test runs
}

// covers says whether the announcement is about the finding.
func (a *announcement) covers(f Finding) bool {
	if !a.pattern.MatchString(f.Text) {
		return false
	}
	if a.namespace != "" { // a namespace belongs to one test, so the time does not matter
		return f.Namespace == a.namespace || mentions(f.Text, a.namespace)
	}
	return !f.Time.Before(a.from) && (a.to.IsZero() || !f.Time.After(a.to))
}

// mentions says whether a line names a namespace, and not just one whose name begins with it.
func mentions(text, namespace string) bool {
	for rest := text; ; {
		at := strings.Index(rest, namespace)
		if at < 0 {
			return false
		}
		end := at + len(namespace)
		if (at == 0 || !nameByte(rest[at-1])) && (end == len(rest) || !nameByte(rest[end])) {
			return true
		}
		rest = rest[end:]
	}
}

func nameByte(b byte) bool {
	return b == '-' || b >= '0' && b <= '9' || b >= 'a' && b <= 'z'
}

// A Ledger holds findings and announcements. It may be used by many goroutines.
type Ledger struct {
	mu        sync.Mutex
	findings  []Finding
	announced []*announcement
	tests     map[string]string // by namespace
}

// Add adds a finding.
func (l *Ledger) Add(f Finding) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.findings = append(l.findings, f)
}

// Owns notes that a namespace is a test's, so that findings in it can name the test.
func (l *Ledger) Owns(test, namespace string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.tests == nil {
		l.tests = map[string]string{}
	}
	l.tests[namespace] = test
}

// Announce says that a test causes findings whose text matches the pattern, and why. With a namespace it covers what concerns that
// namespace; without one it covers the whole cluster until the returned function is called with the time it ends.
func (l *Ledger) Announce(test, pattern, namespace, reason string, from time.Time) (end func(time.Time), err error) {
	if strings.TrimSpace(reason) == "" {
		return nil, fmt.Errorf("announcement %q of %s has no reason: say why the test causes it", pattern, test)
	}
	compiled, err := regexp.Compile(pattern)
	if err != nil {
		return nil, fmt.Errorf("announcement of %s: %w", test, err)
	}
	if compiled.MatchString("") {
		return nil, fmt.Errorf("announcement %q of %s matches every line: name the error", pattern, test)
	}
	a := &announcement{test: test, reason: reason, pattern: compiled, namespace: namespace, from: from}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.announced = append(l.announced, a)
	return func(at time.Time) {
		l.mu.Lock()
		defer l.mu.Unlock()
		a.to = at
	}, nil
}

// Reconciles returns how many failed reconciles of a controller the log of a container told of since a moment.
func (l *Ledger) Reconciles(s Source, controller string, since time.Time) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := 0
	for _, f := range l.findings {
		if f.Source == s && f.Controller == controller && !f.Time.Before(since) {
			n++
		}
	}
	return n
}

// Unannounced returns the findings that no test announced, in the order of their time.
func (l *Ledger) Unannounced() []Finding {
	l.mu.Lock()
	defer l.mu.Unlock()
	var left []Finding
	for _, f := range l.findings {
		if !slices.ContainsFunc(l.announced, func(a *announcement) bool { return a.covers(f) }) {
			left = append(left, f)
		}
	}
	slices.SortStableFunc(left, func(a, b Finding) int { return a.Time.Compare(b.Time) })
	return left
}

// maxGroups and maxText bound a report.
const (
	maxGroups = 40
	maxText   = 700
)

// Report describes findings, those that differ in names and numbers alone as one. It is empty where there are none.
func (l *Ledger) Report(findings []Finding) string {
	if len(findings) == 0 {
		return ""
	}
	type group struct {
		first Finding
		count int
		where map[string]bool
	}
	groups := map[string]*group{}
	for _, f := range findings {
		key := string(f.Kind) + f.Container + shape(f.Text)
		g := groups[key]
		if g == nil {
			g = &group{first: f, where: map[string]bool{}}
			groups[key] = g
		}
		g.count++
		g.where[f.Namespace] = true
	}
	ordered := make([]*group, 0, len(groups))
	for _, g := range groups {
		ordered = append(ordered, g)
	}
	slices.SortFunc(ordered, func(a, b *group) int {
		return cmp.Or(b.count-a.count, a.first.Time.Compare(b.first.Time))
	})
	var b strings.Builder
	fmt.Fprintf(&b, "%d failures of the product's own that no test announced, of %d kinds:\n", len(findings), len(groups))
	for i, g := range ordered {
		if i == maxGroups {
			fmt.Fprintf(&b, "... and %d kinds more\n", len(ordered)-i)
			break
		}
		fmt.Fprintf(&b, "%dx %s, first at %s of %s%s\n    %s\n", g.count, g.first.Kind, g.first.Time.Format(time.RFC3339Nano), g.first.Source,
			l.during(g.first), shorten(g.first.Text))
	}
	return b.String()
}

// during names the test whose namespace a finding concerns.
func (l *Ledger) during(f Finding) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	for namespace, test := range l.tests {
		if f.Namespace == namespace || mentions(f.Text, namespace) {
			return " (" + test + ")"
		}
	}
	return ""
}

var (
	variableParts = regexp.MustCompile(`e2e-[a-z0-9]+|[0-9a-f]{8}-[0-9a-f-]{27}|-[a-z0-9]{6,10}-[a-z0-9]{5}\b|[0-9]+`)
	timeField     = regexp.MustCompile(`"?time"?[:=]"?[^ ",]+"?,? ?`)
)

// shape is a text without what differs between two occurrences of one failure.
func shape(text string) string {
	return variableParts.ReplaceAllString(timeField.ReplaceAllString(text, ""), "#")
}

func shorten(text string) string {
	text = strings.ReplaceAll(text, "\n", "\n    ")
	if len(text) > maxText {
		return text[:maxText] + "..."
	}
	return text
}
