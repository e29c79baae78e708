package report

import (
	_ "embed"
	"html/template"
	"io"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
)

//go:embed report.html
var page string

// writeHTML writes one file that loads nothing: it may be opened from a disk, and says so to the browser.
func writeHTML(w io.Writer, r *experiment.Report) error {
	t, err := template.New("report").Funcs(template.FuncMap{
		"mark": sign, "reach": reach, "reproduce": reproduce,
		"picture":  func(check string, shares []float64) *picture { return draw(loadOf(r, check), shares) },
		"describe": describe, "quantity": quantity, "statuses": experiment.FormatStatuses,
		"required": func(check string) bool { return required(r, check) },
		"word": func(o experiment.Outcome) string {
			if o == "" {
				return "not run"
			}
			return string(o)
		},
	}).Parse(page)
	if err != nil {
		return err
	}
	return t.Execute(w, r)
}
