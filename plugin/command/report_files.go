package command

import (
	"errors"
	"fmt"
	"os"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/report"
)

// print prints the report, and writes the requested report files.
func (f *testFlags) print(rep *experiment.Report) error {
	format := report.Text
	if f.output == "json" {
		format = report.JSON
	}
	errs := []error{report.Write(f.Out, format, rep)}
	for _, o := range f.outputs {
		errs = append(errs, o.write(rep))
	}
	return errors.Join(errs...)
}

// writable checks that the file can be written, before anything runs whose result would be lost.
func (o reportFile) writable() error {
	_, missing := os.Lstat(o.file)
	file, err := os.OpenFile(o.file, os.O_WRONLY|os.O_CREATE, 0o666) //nolint:gosec // as os.Create does
	if err != nil {
		return o.problem(err)
	}
	err = file.Close()
	if os.IsNotExist(missing) {
		err = errors.Join(err, os.Remove(o.file))
	}
	return o.problem(err)
}

func (o reportFile) write(rep *experiment.Report) error {
	file, err := os.Create(o.file)
	if err == nil {
		err = errors.Join(report.Write(file, o.format, rep), file.Close())
	}
	return o.problem(err)
}

func (o reportFile) problem(err error) error {
	if err == nil {
		return nil
	}
	return &plan.Problem{What: fmt.Sprintf("--report=%s: %v", o.format, err), Err: err}
}
