package report

import (
	_ "embed"
	"html/template"
	"io"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
)

//go:embed report.html
var page string

// writeHTML writes one self-contained file: it loads nothing, and its policy tells the browser so.
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
