// Package report writes what an experiment found: for a terminal, for programs, for pipelines, for pull requests and for browsers.
package report

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/escape"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
)

// Formats of Write.
const (
	Text     = "text"
	JSON     = "json"
	JUnit    = "junit"
	Markdown = "markdown"
	HTML     = "html"
)

// Formats returns the file formats, in the order in which help names them.
func Formats() []string { return []string{JSON, JUnit, Markdown, HTML} }

// Write writes a report in one of the formats.
func Write(w io.Writer, format string, r *experiment.Report) error {
	if format == JSON {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(r)
	}
	r, err := legible(r)
	if err != nil {
		return err
	}
	switch format {
	case Text:
		return writeText(w, r)
	case JUnit:
		return writeJUnit(w, r)
	case Markdown:
		return writeMarkdown(w, r)
	case HTML:
		return writeHTML(w, r)
	}
	return fmt.Errorf("%q is not a report format", format)
}

// outcome formats an outcome for a table: if the check is not required, in brackets.
func outcome(r *experiment.Report, x *experiment.Result) string {
	s := string(x.Outcome)
	if s == "" {
		s = "not run"
	}
	if !required(r, x.Check) {
		s = "(" + s + ")"
	}
	return s
}

func required(r *experiment.Report, check string) bool {
	return slices.ContainsFunc(r.Checks, func(c experiment.CheckReport) bool { return c.Name == check && c.Required })
}

// reach describes where a check's requests went, in a few words.
func reach(x *experiment.Result) string {
	var fork, other uint64
	for _, n := range x.Requests {
		fork += n.Fork
		other += n.FellBack + n.Refused
	}
	s := fmt.Sprintf("%d served by the fork", fork)
	if other > 0 {
		s += fmt.Sprintf(", %d not", other)
	}
	if x.Sent != nil {
		s += fmt.Sprintf(", of %d sent", x.Sent.Begun)
	}
	return s
}

// describe describes how a load check measured.
func describe(l *experiment.LoadReport) string {
	s := fmt.Sprintf("%d requests to each variant and to each of two baseline arms, %g a second in all, in %g s", l.Requests, l.Rate, l.Took)
	if l.Settled {
		s += " (ended early, as more would change no verdict)"
	}
	if l.Agree {
		s += "; the baseline arms agree"
	} else {
		s += "; the baseline arms differ"
	}
	if n := l.List.Requests; n > 0 {
		s += fmt.Sprintf("; a list of %d", n)
		if l.List.Host != "" {
			s += ", recorded of " + l.List.Host
		}
		s += result.FormatLeftOut(", ", l.List.LeftOut)
	}
	if len(l.Statuses) > 0 {
		s += "; the baseline answered " + experiment.FormatStatuses(l.Statuses)
	}
	return s
}

// quantity formats a metric: seconds, or a share of requests.
func quantity(metric string, v float64) string {
	switch {
	case metric == "errors":
		return fmt.Sprintf("%.2f %%", 100*v)
	case v >= 10:
		return fmt.Sprintf("%.1f s", v)
	case v >= 0.1:
		return fmt.Sprintf("%.0f ms", 1000*v)
	case v >= 0.001:
		return fmt.Sprintf("%.2f ms", 1000*v)
	}
	return fmt.Sprintf("%.0f \u00b5s", 1e6*v)
}

// measured describes what a load check measured of a variant, in one line.
func measured(m *experiment.Measured) string {
	texts := make([]string, len(m.Differences))
	for i, d := range m.Differences {
		texts[i] = d.Text
	}
	if len(m.Statuses) > 0 {
		texts = append(texts, "answered "+experiment.FormatStatuses(m.Statuses))
	}
	return strings.Join(texts, ", ")
}

// measurements describes how a load check measured, and what, one line each; empty for other checks.
func measurements(r *experiment.Report, x *experiment.Result) []string {
	l := loadOf(r, x.Check)
	if l == nil || x.Measured == nil {
		return nil
	}
	return []string{describe(l), measured(x.Measured)}
}

// writeLoads writes the measurements of load checks, one line per variant.
func writeLoads(w io.Writer, r *experiment.Report) {
	for _, c := range r.Checks {
		if c.Load == nil {
			continue
		}
		fmt.Fprintf(w, "\n%s: %s\n", c.Name, describe(c.Load))
		t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
		for i := range r.Variants {
			if x := r.Variants[i].Result(c.Name); x.Measured != nil {
				fmt.Fprintf(t, "  %s\t%s\n", r.Variants[i].Name, measured(x.Measured))
				for _, b := range x.Bystanders {
					if b.Note != "" { // what fails is among the reasons
						fmt.Fprintf(t, "  \t%s\n", b.Note)
					}
				}
			}
		}
		_ = t.Flush() // the next write fails as well
	}
}

func writeText(w io.Writer, r *experiment.Report) error {
	t := tabwriter.NewWriter(w, 0, 8, 3, ' ', 0)
	head := []string{"VARIANT"}
	for _, c := range r.Checks {
		head = append(head, strings.ToUpper(c.Name))
	}
	fmt.Fprintln(t, strings.Join(append(head, "VERDICT"), "\t"))
	for i := range r.Variants {
		v := &r.Variants[i]
		row := []string{v.Name}
		for j := range v.Results {
			row = append(row, outcome(r, &v.Results[j]))
		}
		fmt.Fprintln(t, strings.Join(append(row, string(v.Outcome)), "\t"))
	}
	if err := t.Flush(); err != nil {
		return err
	}
	writeLoads(w, r)
	for i := range r.Variants {
		v := &r.Variants[i]
		if len(v.Reasons) > 0 && len(v.Results) > 0 && !v.Results[0].Done() {
			for _, reason := range v.Reasons {
				fmt.Fprintf(w, "\n%s %s: %s\n", v.Name, v.Outcome, reason)
			}
		}
		for j := range v.Results {
			x := &v.Results[j]
			if !x.Done() || x.Outcome == experiment.Passed {
				continue
			}
			fmt.Fprintf(w, "\n%s, %s: %s (%s)\n", v.Name, x.Check, x.Outcome, reach(x))
			for _, reason := range x.Reasons {
				fmt.Fprintf(w, "  %s\n", reason)
			}
			for _, line := range x.Log {
				fmt.Fprintf(w, "  | %s\n", line)
			}
		}
		for _, reason := range v.Reasons {
			if reason.Code == experiment.ForkUntested {
				fmt.Fprintf(w, "\n%s: %s\n", v.Name, reason)
			}
		}
	}
	_, err := fmt.Fprintf(w, "\n%s\n  %s\n", r.Headline(), strings.Join(r.Summary, "\n  "))
	return err
}

// JUnit's XML, as most pipelines read it (https://github.com/testmoapp/junitxml): failed is a failure, inconclusive
// an error, and a check that has not run is skipped.
type junitSuites struct {
	XMLName xml.Name     `xml:"testsuites"`
	Name    string       `xml:"name,attr"`
	Suites  []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Errors   int         `xml:"errors,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Time     string      `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name    string       `xml:"name,attr"`
	Class   string       `xml:"classname,attr"`
	Time    string       `xml:"time,attr"`
	Failure *junitReason `xml:"failure,omitempty"`
	Error   *junitReason `xml:"error,omitempty"`
	Skipped *junitReason `xml:"skipped,omitempty"`
	Out     string       `xml:"system-out,omitempty"`
}

type junitReason struct {
	Type    string `xml:"type,attr,omitempty"`
	Message string `xml:"message,attr,omitempty"`
	Text    string `xml:",chardata"`
}

func writeJUnit(w io.Writer, r *experiment.Report) error {
	out := junitSuites{Name: "experiment " + r.ID}
	for i := range r.Variants {
		v := &r.Variants[i]
		s := junitSuite{Name: v.Name, Tests: len(v.Results)}
		var took time.Duration
		for j := range v.Results {
			x := &v.Results[j]
			c := junitCase{Name: x.Check, Class: v.Name, Time: seconds(x.Window.Took()), Out: strings.Join(append(measurements(r, x), x.Log...), "\n")}
			took += x.Window.Took()
			why := &junitReason{}
			for k, reason := range x.Reasons {
				if k == 0 {
					why.Type, why.Message = string(reason.Code), reason.Text()
				}
				why.Text += reason.String() + "\n"
			}
			switch x.Outcome {
			case experiment.Passed:
			case experiment.Failed:
				c.Failure = why
				s.Failures++
			case experiment.Inconclusive:
				c.Error = why
				s.Errors++
			default:
				c.Skipped = why
				s.Skipped++
			}
			s.Cases = append(s.Cases, c)
		}
		s.Time = seconds(took)
		out.Suites = append(out.Suites, s)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", "  ")
	if err := e.Encode(out); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1f", d.Seconds()) }

// mark returns a symbol for an outcome, which does not rely on colour.
func mark(o experiment.Outcome) string {
	switch o {
	case experiment.Passed:
		return "✅"
	case experiment.Failed:
		return "❌"
	case experiment.Inconclusive:
		return "❔"
	}
	return "–"
}

// sign is an outcome at a glance where there may be no font of emoji.
func sign(o experiment.Outcome) string {
	switch o {
	case experiment.Passed:
		return "✓"
	case experiment.Failed:
		return "✗"
	case experiment.Inconclusive:
		return "?"
	}
	return "–"
}

func writeMarkdown(w io.Writer, r *experiment.Report) error {
	fmt.Fprintf(w, "### %s %s\n\n%s\n\n| Variant |", mark(r.Outcome), escape.Markdown(r.Headline()), escape.Markdown(strings.Join(r.Summary, " ")))
	for _, c := range r.Checks {
		fmt.Fprintf(w, " %s |", escape.Markdown(c.Name))
	}
	fmt.Fprintf(w, " Verdict |\n|---|%s---|\n", strings.Repeat("---|", len(r.Checks)))
	for i := range r.Variants {
		v := &r.Variants[i]
		fmt.Fprintf(w, "| **%s** |", escape.Markdown(v.Name))
		for j := range v.Results {
			fmt.Fprintf(w, " %s %s |", mark(v.Results[j].Outcome), escape.Markdown(outcome(r, &v.Results[j])))
		}
		fmt.Fprintf(w, " %s %s |\n", mark(v.Outcome), escape.Markdown(string(v.Outcome)))
	}
	for _, c := range r.Checks {
		if c.Load == nil {
			continue
		}
		fmt.Fprintf(w, "\n%s: %s\n\n| Variant | Difference from the baseline, 95 %% intervals |\n|---|---|\n", escape.Markdown(c.Name), escape.Markdown(describe(c.Load)))
		for i := range r.Variants {
			if x := r.Variants[i].Result(c.Name); x.Measured != nil {
				fmt.Fprintf(w, "| **%s** | %s |\n", escape.Markdown(r.Variants[i].Name), escape.Markdown(measured(x.Measured)))
			}
		}
	}
	for i := range r.Variants {
		v := &r.Variants[i]
		if v.Outcome == experiment.Passed {
			continue
		}
		fmt.Fprintf(w, "\n**%s** %s:\n", escape.Markdown(v.Name), escape.Markdown(string(v.Outcome)))
		for _, reason := range v.Reasons {
			fmt.Fprintf(w, "- %s %s\n", escape.Code(string(reason.Code)), escape.Markdown(reason.Text()))
		}
		for j := range v.Results {
			if x := &v.Results[j]; len(x.Log) > 0 {
				fmt.Fprintf(w, "\n<details><summary>log of %s</summary>\n\n%s\n</details>\n", escape.Markdown(x.Check), escape.Block(x.Log))
			}
		}
	}
	_, err := fmt.Fprintf(w, "\n<sub>kubectl sandbox %s; %s</sub>\n", escape.Markdown(r.Version),
		escape.Code("kubectl sandbox report "+r.ID+" --namespace="+r.Namespace))
	return err
}

// legible returns a copy of a report in which each text is a line that can be shown: a test's log, and whoever may write the experiment's
// ConfigMap, can put anything there. Each format escapes what is markup in it besides.
func legible(r *experiment.Report) (*experiment.Report, error) {
	data, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	decoder := json.NewDecoder(bytes.NewReader(data))
	decoder.UseNumber()
	var all any
	if err := decoder.Decode(&all); err != nil {
		return nil, err
	}
	if data, err = json.Marshal(lines(all)); err != nil {
		return nil, err
	}
	shown := &experiment.Report{}
	return shown, json.Unmarshal(data, shown)
}

// lines returns a JSON value whose texts are lines.
func lines(v any) any {
	switch v := v.(type) {
	case string:
		return escape.Line(v)
	case []any:
		for i := range v {
			v[i] = lines(v[i])
		}
	case map[string]any:
		shown := make(map[string]any, len(v))
		for key, value := range v {
			shown[escape.Line(key)] = lines(value)
		}
		return shown
	}
	return v
}

// reproduce is the command that runs the experiment again.
func reproduce(r *experiment.Report) string { return plan.Quote(r.Reproduce) }
