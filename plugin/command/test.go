package command

import (
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/kubectl/pkg/util/templates"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/suite"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/operate"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/plan/forks"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/report"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// testFlags are the flags and arguments of `test`.
type testFlags struct {
	*tool
	variantArgs, files, from, reports []string
	id, entry, delete, require        string
	output                            string
	serviceAccount                    string
	parallel                          int
	timeout, ttl                      time.Duration
	route, wait, unattended           bool

	args    []string
	images  []operate.VariantImage // --variant; empty: args are sandboxes
	suite   suite.Suite
	outputs []reportFile
	command []string // as it was typed
	version string
}

// A reportFile is one --report=FORMAT=FILE.
type reportFile struct{ format, file string }

func newTest(t *tool) *cobra.Command {
	f := &testFlags{tool: t}
	cmd := &cobra.Command{
		Use:                   "test (NAME... | TYPE/NAME --variant=NAME=IMAGE...) -f SUITE",
		DisableFlagsInUseLine: true,
		Short:                 "Test variants of a change side by side, and report which passed",
		Long: templates.LongDesc(`
			Run a suite of tests against several sandboxes at once, and print a verdict for each. With --variant, test
			creates the sandboxes, one for each image.

			A suite is a YAML file of Jobs or CronJobs of batch/v1, one test each, with any image. It may also hold the
			ConfigMaps, Secrets, PersistentVolumeClaims and ServiceAccounts that the tests use; the experiment creates
			and owns them.

			A test finds the Service to test in its environment variable SANDBOX_URL. Annotation
			kubectl-sandbox.dev/services names further Services, which are in SANDBOX_URL_SERVICE. Requests to these
			addresses, or through HTTP_PROXY, carry the sandbox's key. Further annotations of the Job, each beginning
			with kubectl-sandbox.dev/: kind (e2e, load or contract; a load test runs while no other test does), required
			(true or false) and timeout.

			A test passes if it exits with 0 and the routers report that the fork, and nothing else, served its
			requests. If they report otherwise, or can't tell, the verdict is "inconclusive", with the reason.

			The exit status is 0 if a variant passed (with --require=all, if all passed), 1 if none did, 2 if that is
			unknown, and 3 if the experiment could not run or was interrupted.`),
		Example: templates.Examples(`
			# Test two sandboxes there are
			kubectl sandbox test pr-42 pr-43 -f suite.yaml

			# Fork a Deployment twice, test both, and keep the better one
			kubectl sandbox test deploy/api --variant=a=api:a --variant=b=api:b -f suite.yaml --delete=losers

			# Write reports for a pull request and for a pipeline
			kubectl sandbox test pr-42 -f suite.yaml --report=markdown=out.md --report=junit=out.xml

			# Take a test from a CronJob
			kubectl sandbox test pr-42 --from=cronjob/nightly

			# Have a Job in the cluster run it, and print later what it found
			kubectl sandbox test pr-42 -f suite.yaml --id=pr-42-1 --wait=false --service-account=pipeline
			kubectl sandbox report pr-42-1 --wait`),
		ValidArgsFunction: t.completeSandboxes(0),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := f.complete(cmd, args)
			if err == nil {
				err = f.run(cmd.Context())
			}
			var code *exitError
			if err != nil && !errors.As(err, &code) {
				err = &exitError{suite.ExitNotRun, err}
			}
			return err
		},
	}
	f.addFlags(cmd)
	f.addReportFlags(cmd)
	return cmd
}

// addFlags adds the flags that only `test` has.
func (f *testFlags) addFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&f.variantArgs, "variant", nil, "Variant to create, as NAME=[CONTAINER=]IMAGE. "+
		"Repeat it for further ones.")
	flags.StringArrayVarP(&f.files, "filename", "f", nil, "Suite: a file of Jobs and what they use, "+
		"or - for standard input. Repeat it for further ones.")
	flags.StringArrayVar(&f.from, "from", nil, "CronJob to take a test from, as cronjob/NAME. Repeat it for further ones.")
	flags.StringVar(&f.entry, "entry", "", "Service that SANDBOX_URL stands for where a test names none, "+
		"as svc/SERVICE[.NAMESPACE][:PORT]. Without it, the one by which requests enter the namespace.")
	flags.StringVar(&f.id, "id", "", "Name of the experiment. One is generated if it is left out. "+
		"With the ID of an interrupted experiment, test resumes it.")
	flags.IntVar(&f.parallel, "parallel", 4, "Variants to test at the same time. "+
		"The tests of one variant run one after the other.")
	flags.DurationVar(&f.timeout, "timeout", 10*time.Minute, "How long a test may take from the start of its container, "+
		"unless it sets a limit itself; and how long a variant may take to get ready.")
	flags.DurationVar(&f.ttl, "ttl", 8*time.Hour, "Lifetime of the experiment, and of the sandboxes that it creates, "+
		"from now on; 0 means forever.")
	flags.StringVar(&f.delete, "delete", operate.DeleteNone, `Which of the sandboxes that the experiment created `+
		`are deleted at its end: "none", "losers" (all but the best; where none passed, those that failed) or "all".`)
	flags.StringVar(&f.require, "require", experiment.RequireAny, `What has to pass: "any" variant or "all".`)
	flags.BoolVar(&f.wait, "wait", true, "Wait until the experiment has ended. With --wait=false a Job in the cluster "+
		"runs it, with the rights of --service-account; report prints what it found.")
	flags.StringVar(&f.serviceAccount, "service-account", "", "With --wait=false, the service account of the namespace "+
		"whose rights the experiment has. It needs those of role sandbox-user.")
	flags.BoolVar(&f.unattended, "unattended", false, "")
	if err := flags.MarkHidden("unattended"); err != nil {
		panic(err) // it is there
	}
	flags.BoolVar(&f.route, "route", false, "Put routers in front of the workload if it has none, which rolls it out.")
	completeValues(cmd, "delete", operate.DeleteNone, operate.DeleteLosers, operate.DeleteAll)
	completeValues(cmd, "require", experiment.RequireAny, experiment.RequireAll)
}

// addReportFlags adds the flags for printing what an experiment found, which `report` has as well.
func (f *testFlags) addReportFlags(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.StringArrayVar(&f.reports, "report", nil, "Report to write, as FORMAT=FILE. "+
		"FORMAT is one of: (json, junit, markdown, html). Repeat it for further ones.")
	flags.StringVarP(&f.output, "output", "o", "", "Output format. One of: (json).")
	completeValues(cmd, "output", "json")
}

// complete reads the flags and arguments, and the suite's files.
func (f *testFlags) complete(cmd *cobra.Command, args []string) error {
	f.version, f.command = cmd.Parent().Version, []string{"kubectl", "sandbox", "test"}
	f.args = args
	for _, s := range f.variantArgs {
		v, err := parseVariant(s)
		if err != nil {
			return usageError(cmd, err.Error())
		}
		if slices.ContainsFunc(f.images, func(o operate.VariantImage) bool { return o.Name == v.Name }) {
			return usageError(cmd, fmt.Sprintf("--variant %s: the name is given twice", s))
		}
		f.images = append(f.images, v)
	}
	if f.id == "" {
		f.id = "r" + strings.TrimPrefix(sandbox.NewName(), "sb-")
	}
	if err := f.validate(cmd); err != nil {
		return err
	}
	for _, s := range f.reports {
		o, err := parseReport(s)
		if err != nil {
			return usageError(cmd, err.Error())
		}
		f.outputs = append(f.outputs, o)
	}
	f.words(cmd)
	return f.readSuites(cmd)
}

func (f *testFlags) validate(cmd *cobra.Command) error {
	switch {
	case len(f.args) == 0:
		return usageError(cmd, "name the sandboxes to test, or a workload, as TYPE/NAME with --variant=NAME=IMAGE")
	case len(f.images) > 0 && len(f.args) > 1 && !strings.Contains(f.args[0], "/"):
		f.args = []string{strings.Join(f.args, "/")} // deployment api
	case len(f.images) > 0 && len(f.args) > 1:
		return usageError(cmd, "--variant is of one workload, and several are named")
	case len(f.images) == 0 && slices.ContainsFunc(f.args, isWorkloadArg):
		return usageError(cmd, fmt.Sprintf("%s is to be forked into variants, and --variant=NAME=IMAGE is missing", f.args[0]))
	case len(f.files) == 0 && len(f.from) == 0:
		return usageError(cmd, "no test is named: give -f SUITE, or --from=cronjob/NAME")
	case f.parallel < 1:
		return usageError(cmd, fmt.Sprintf("--parallel %d is less than 1", f.parallel))
	case f.timeout < time.Second:
		return usageError(cmd, fmt.Sprintf("--timeout %s is less than a second", f.timeout))
	case f.ttl < 0:
		return usageError(cmd, fmt.Sprintf("--ttl %s is negative", f.ttl))
	case !slices.Contains([]string{operate.DeleteNone, operate.DeleteLosers, operate.DeleteAll}, f.delete):
		return usageError(cmd, fmt.Sprintf("--delete %q is not one of %s, %s and %s", f.delete, operate.DeleteNone, operate.DeleteLosers, operate.DeleteAll))
	case f.require != experiment.RequireAny && f.require != experiment.RequireAll:
		return usageError(cmd, fmt.Sprintf("--require %q is neither %s nor %s", f.require, experiment.RequireAny, experiment.RequireAll))
	case f.output != "" && f.output != "json":
		return usageError(cmd, fmt.Sprintf("--output %q is not json", f.output))
	case !f.wait && f.serviceAccount == "":
		return usageError(cmd, "--wait=false: --service-account must name the one whose rights the experiment has in the cluster")
	case !f.wait && len(f.reports) > 0:
		return usageError(cmd, "--wait=false: nothing is found yet that --report could write; give it to `kubectl sandbox report "+f.id+"`")
	case f.wait && f.serviceAccount != "":
		return usageError(cmd, "--service-account is for --wait=false: else the experiment has your own rights")
	}
	if err := sandbox.ValidateName(f.id); err != nil {
		return usageError(cmd, fmt.Sprintf("--id %q %v", f.id, err))
	}
	for _, v := range f.images {
		if err := sandbox.ValidateName(operate.VariantSandbox(f.id, v.Name)); err != nil {
			return usageError(cmd, fmt.Sprintf("--variant %s: its sandbox %q %v", v.Name, operate.VariantSandbox(f.id, v.Name), err))
		}
	}
	if len(f.images) == 0 {
		for i, name := range f.args {
			if f.args[i] = sandboxArg(name); slices.Contains(f.args[:i], f.args[i]) {
				return usageError(cmd, fmt.Sprintf("sandbox %q is given twice", f.args[i]))
			}
			if err := validName(cmd, f.args[i]); err != nil {
				return err
			}
		}
	}
	return nil
}

func isWorkloadArg(s string) bool { return strings.Contains(sandboxArg(s), "/") }

func parseVariant(s string) (operate.VariantImage, error) {
	name, image, ok := strings.Cut(s, "=")
	if !ok {
		return operate.VariantImage{}, fmt.Errorf("--variant %q is not NAME=IMAGE", s)
	}
	if err := sandbox.ValidateName(name); err != nil {
		return operate.VariantImage{}, fmt.Errorf("--variant %q: its name %w", s, err)
	}
	c, err := forks.ParseImage(image)
	if err != nil {
		return operate.VariantImage{}, fmt.Errorf("--variant %q: %s", s, strings.TrimPrefix(err.Error(), "--image "))
	}
	return operate.VariantImage{Name: name, Image: c}, nil
}

func parseReport(s string) (reportFile, error) {
	format, file, ok := strings.Cut(s, "=")
	if !ok || file == "" || !slices.Contains(report.Formats(), format) {
		return reportFile{}, fmt.Errorf("--report %q is not FORMAT=FILE, with a FORMAT of %s", s, strings.Join(report.Formats(), ", "))
	}
	return reportFile{format, file}, nil
}

// words records the command line for the report.
func (f *testFlags) words(cmd *cobra.Command) {
	f.command = append(f.command, f.args...)
	add := func(flag string, values ...string) {
		for _, v := range values {
			f.command = append(f.command, "--"+flag+"="+v)
		}
	}
	add("variant", f.variantArgs...)
	add("filename", f.files...)
	add("from", f.from...)
	for _, name := range []string{"entry", "parallel", "timeout", "ttl", "delete", "require", "route"} {
		if flag := cmd.Flags().Lookup(name); flag.Changed {
			add(name, flag.Value.String())
		}
	}
	f.command = f.chosen().Add(f.command)
}

func (f *testFlags) readSuites(cmd *cobra.Command) error {
	for _, name := range f.files {
		var data []byte
		var err error
		if name == "-" {
			name = "standard input"
			data, err = io.ReadAll(f.In)
		} else {
			data, err = os.ReadFile(name)
		}
		if err != nil {
			return &plan.Problem{What: fmt.Sprintf("--filename: %v", err), Err: err}
		}
		parsed, err := suite.Parse(name, data)
		if err == nil {
			err = f.suite.Join(parsed)
		}
		if err != nil {
			return &plan.Problem{What: err.Error(), Err: err}
		}
	}
	for _, s := range f.from {
		kind, name, ok := strings.Cut(s, "/")
		if !ok || name == "" || !slices.Contains([]string{"cronjob", "cronjobs", "cj", "cronjob.batch", "cronjobs.batch"}, kind) {
			return usageError(cmd, fmt.Sprintf("--from %q is not cronjob/NAME", s))
		}
	}
	return nil
}

// exitOf returns the error for the exit status of an outcome.
func exitOf(o experiment.Outcome) error {
	switch o {
	case experiment.Passed:
		return nil
	case experiment.Failed:
		return &exitError{code: suite.ExitNonePassed}
	}
	return &exitError{code: suite.ExitInconclusive}
}
