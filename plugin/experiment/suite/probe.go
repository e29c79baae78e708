package suite

import (
	"errors"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/judge"
	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/stats"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/route"
	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// ProbeImage selects a built-in check where it is the image of a check's only container. It stands for the image
// sandbox-probe of the cluster's chart.
const ProbeImage = "sandbox-probe"

// ratePerArm is the default rate of a load check per arm, in requests a second, within the cluster's limit.
const ratePerArm = 100

// A Probe is a built-in check: one Job that compares all variants with the baseline.
type Probe struct {
	Contract bool           // else it is of load
	GRPC     bool           // of contract: by reflection, else by an OpenAPI document
	Budgets  []stats.Budget // of load
	Rate     float64        // of load, requests a second to all arms together; 0: the author does not say
}

// Probes is the cluster's configuration of built-in checks.
type Probes struct {
	Image    string
	MaxRate  float64 // of load checks, requests a second; 0: no limit
	Carriers route.Carriers
}

// probe reads a built-in check from its Job; nil if it is none.
func (c *Check) probe() (*Probe, error) {
	containers := c.Job.Spec.Template.Spec.Containers
	if !slices.ContainsFunc(containers, func(o corev1.Container) bool { return o.Image == ProbeImage }) {
		return nil, nil
	}
	const at = "spec.template.spec.containers"
	args := containers[0].Args
	switch {
	case len(containers) > 1:
		return nil, errors.New(at + ": a built-in check has one container, of image " + ProbeImage)
	case len(containers[0].Command) > 0:
		return nil, errors.New(at + "[0].command: must be left out: the image has its own")
	case !one(c.Job.Spec.Parallelism) || !one(c.Job.Spec.Completions):
		return nil, errors.New("spec.parallelism, spec.completions: " +
			"a built-in check compares all variants in one pod, and both must be 1 or left out")
	case len(c.Services) > 1:
		return nil, fmt.Errorf("annotation %s: a built-in check is of one Service", sandbox.AnnotationServices)
	}
	p := &Probe{}
	switch {
	case len(args) > 0 && args[0] == "load":
		args = args[1:]
	case len(args) > 1 && args[0] == "contract" && (args[1] == "openapi" || args[1] == "grpc"):
		p.Contract, p.GRPC = true, args[1] == "grpc"
		args = args[2:]
	default:
		return nil, errors.New(at + `[0].args: a built-in check begins with "load", ` +
			`or with "contract" and "openapi" or "grpc"`)
	}
	for i, arg := range args {
		name, value, has := strings.Cut(strings.TrimLeft(arg, "-"), "=")
		if !strings.HasPrefix(arg, "-") {
			continue
		}
		switch name {
		case "url", "target", "variant", "baseline-key", "key-header", "key-member", "thresholds", "report-every":
			return nil, fmt.Errorf("%s[0].args: --%s is set by the experiment, and must be left out", at, name)
		case "rate":
			if !has && i+1 < len(args) {
				value = args[i+1]
			}
			rate, err := strconv.ParseFloat(value, 64)
			if err != nil || !(rate > 0) || math.IsInf(rate, 0) {
				return nil, fmt.Errorf("%s[0].args: --rate=%s: must be more than 0", at, value)
			}
			p.Rate = rate
		}
	}
	return p, nil
}

func one(n *int32) bool { return n == nil || *n == 1 }

// thresholds reads the budgets of a built-in load check. The default is judge.DefaultBudgets.
func (p *Probe) thresholds(text string) (err error) {
	switch {
	case p.Contract && text != "":
		return errors.New("a check of contract has no thresholds: it passes or breaks it")
	case p.Contract:
		return nil
	case text == "":
		text = judge.DefaultBudgets
	}
	p.Budgets, err = stats.ParseBudgets(text)
	return err
}

func (p *Probe) kind() Kind {
	if p.Contract {
		return Contract
	}
	return Load
}

// ProbeJob returns the Job that compares variants by a built-in check, whose requests go to the Service. baselineKey
// is the key of the baseline's requests. It fails if the cluster's limit is below the rate that the author requests.
//
// The pod gets no router: the program adds the keys itself, and a router beside it would be measured too.
func ProbeJob(
	run *Run, c *Check, on Probes, service sandbox.Service, variants []Variant, baselineKey string,
) (*batchv1.Job, error) {
	job := frame(run, c)
	job.Name = sandbox.CheckName(c.Name, run.ID, run.ID)
	pod := &job.Spec.Template
	for _, m := range []*metav1.ObjectMeta{&job.ObjectMeta, &pod.ObjectMeta} {
		metav1.SetMetaDataLabel(m, sandbox.LabelRun, run.ID)
		metav1.SetMetaDataLabel(m, sandbox.LabelCheck, c.Name)
	}
	job.Spec.BackoffLimit, job.Spec.BackoffLimitPerIndex = ptr.To[int32](0), nil
	container := &pod.Spec.Containers[0]
	container.Image = on.Image
	args := container.Args
	if c.Probe.GRPC {
		args = append(args, "--target="+service.String())
	} else {
		args = append(args, "--url=http://"+service.String())
	}
	args = append(args, "--key-header="+on.Carriers.Header, "--key-member="+on.Carriers.Member)
	for _, v := range variants {
		args = append(args, "--variant="+v.Name+"="+v.Key)
	}
	if !c.Probe.Contract {
		rate, err := c.Probe.rate(on.MaxRate, len(variants)+2)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.Source, err)
		}
		budgets := make([]string, len(c.Probe.Budgets))
		for i, b := range c.Probe.Budgets {
			budgets[i] = b.String()
		}
		args = append(args, "--baseline-key="+baselineKey, "--thresholds="+strings.Join(budgets, ","), "--report-every=1m")
		if c.Probe.Rate == 0 {
			args = append(args, "--rate="+strconv.FormatFloat(rate, 'g', -1, 64))
		}
	}
	container.Args = args
	harden(&pod.Spec, container)
	return job, nil
}

// rate returns the rate of a load check with that number of arms, in requests a second.
func (p *Probe) rate(most float64, arms int) (float64, error) {
	switch {
	case most > 0 && p.Rate > most:
		return 0, fmt.Errorf("--rate=%g: load checks may send %g requests a second in this cluster "+
			"(chart value experiments.maxRate)", p.Rate, most)
	case p.Rate > 0:
		return p.Rate, nil
	case most > 0:
		return min(most, float64(ratePerArm*arms)), nil
	}
	return float64(ratePerArm * arms), nil
}

// harden makes the pod pass Pod Security "restricted" and a quota of requests, where its author sets neither.
func harden(pod *corev1.PodSpec, c *corev1.Container) {
	pod.AutomountServiceAccountToken = ptr.To(false)
	if c.SecurityContext == nil {
		c.SecurityContext = &corev1.SecurityContext{
			AllowPrivilegeEscalation: ptr.To(false), ReadOnlyRootFilesystem: ptr.To(true), RunAsNonRoot: ptr.To(true),
			Capabilities:   &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
		}
	}
	if c.ImagePullPolicy == "" {
		c.ImagePullPolicy = corev1.PullIfNotPresent
	}
	if c.Resources.Requests == nil {
		c.Resources.Requests = corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("64Mi"),
		}
	}
}
