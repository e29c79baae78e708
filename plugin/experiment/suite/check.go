package suite

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A Kind is what a check tests, which determines how it is run.
type Kind string

// Kinds.
const (
	E2E      Kind = "e2e"      // whether it works: the default
	Load     Kind = "load"     // how fast it is; such a check runs while no other does
	Contract Kind = "contract" // whether it still answers as its callers expect
)

// Kinds returns all kinds of checks.
func Kinds() []Kind { return []Kind{E2E, Load, Contract} }

// maxCheckName is the maximum length of a check's name, in bytes: it is a label value.
const maxCheckName = validation.LabelValueMaxLength

// A Check is one test of a suite.
type Check struct {
	Name     string
	Kind     Kind
	Required bool
	Timeout  time.Duration // of the whole Job; 0: the experiment's
	Services []ServiceRef  // that it tests, the first by SANDBOX_URL; none: the namespace's entry
	Job      *batchv1.Job  // as its author wrote it
	Probe    *Probe        // a built-in check; nil: a test of the author's own
	Source   string        // where it is from, for people
}

// A ServiceRef names a Service as the author of a suite does.
type ServiceRef struct {
	Name string // SERVICE or SERVICE.NAMESPACE
	Port string // number or name; empty: the one that is clear
}

// String formats r as in the annotation.
func (r ServiceRef) String() string {
	if r.Port == "" {
		return r.Name
	}
	return r.Name + ":" + r.Port
}

// FromCronJob creates a check from a CronJob's template. It has the CronJob's name; if that is too long, a hash
// replaces its end.
func FromCronJob(c *batchv1.CronJob) (Check, error) {
	job := &batchv1.Job{ObjectMeta: *c.Spec.JobTemplate.ObjectMeta.DeepCopy(), Spec: *c.Spec.JobTemplate.Spec.DeepCopy()}
	job.Name, job.Namespace = sandbox.CutName(c.Name, maxCheckName), c.Namespace
	for k, v := range c.Annotations { // those of its Jobs win
		if _, ok := job.Annotations[k]; !ok && strings.HasPrefix(k, sandbox.Prefix) {
			metav1.SetMetaDataAnnotation(&job.ObjectMeta, k, v)
		}
	}
	check, err := NewCheck(job)
	if err != nil {
		return Check{}, fmt.Errorf("cronjob/%s: %w", c.Name, err)
	}
	check.Source = "cronjob/" + c.Name
	return check, nil
}

// NewCheck reads a check from its Job. An error names the field.
func NewCheck(job *batchv1.Job) (Check, error) {
	c := Check{Name: cmp.Or(job.Name, strings.TrimRight(job.GenerateName, "-.")), Kind: E2E, Required: true, Job: job}
	switch {
	case c.Name == "":
		return c, errors.New("metadata.name: must be set: it is the check's name")
	case len(validation.IsDNS1123Subdomain(c.Name)) > 0 && len(c.Name) <= maxCheckName:
		return c, fmt.Errorf("metadata.name: %q must consist of lowercase letters, digits, '-' and '.', "+
			"and begin and end with a letter or digit", c.Name)
	case len(c.Name) > maxCheckName:
		return c, fmt.Errorf("metadata.name: %q must be at most %d characters long, is %d", c.Name, maxCheckName, len(c.Name))
	case len(job.Spec.Template.Spec.Containers) == 0:
		return c, errors.New("spec.template.spec.containers: must not be empty")
	case job.Spec.Selector != nil || job.Spec.ManualSelector != nil && *job.Spec.ManualSelector:
		return c, errors.New("spec.selector: must be left out: each variant gets a Job of its own")
	case job.Spec.Template.Spec.HostNetwork:
		return c, errors.New("spec.template.spec.hostNetwork: must be left out: " +
			"the pod gets a router, whose ports would be its node's")
	}
	if err := reserved(&job.Spec.Template.Spec); err != nil {
		return c, err
	}
	for _, labels := range []map[string]string{job.Labels, job.Spec.Template.Labels} {
		for k := range labels {
			if strings.HasPrefix(k, sandbox.Prefix) {
				return c, fmt.Errorf("label %s: is set by the experiment, and must be left out", k)
			}
		}
	}
	if err := c.annotations(job.Annotations); err != nil {
		return c, err
	}
	var err error
	if c.Probe, err = c.probe(); err != nil {
		return c, err
	}
	thresholds := job.Annotations[sandbox.AnnotationThresholds]
	if c.Probe == nil {
		if thresholds != "" {
			return c, fmt.Errorf("annotation %s: is of built-in checks (image: %s); "+
				"a Job of one's own is judged by its exit status: "+
				"give the thresholds to its tool", sandbox.AnnotationThresholds, ProbeImage)
		}
		return c, nil
	}
	if _, said := job.Annotations[sandbox.AnnotationKind]; said && c.Kind != c.Probe.kind() {
		return c, fmt.Errorf("annotation %s: %q, and the container's args are those of a check of %s",
			sandbox.AnnotationKind, c.Kind, c.Probe.kind())
	}
	c.Kind = c.Probe.kind()
	if err := c.Probe.thresholds(thresholds); err != nil {
		return c, fmt.Errorf("annotation %s: %w", sandbox.AnnotationThresholds, err)
	}
	return c, nil
}

// reserved returns an error if the author uses a name that admission gives to the router beside the test, which
// admission would mistake for its own.
func reserved(pod *corev1.PodSpec) error {
	for field, containers := range map[string][]corev1.Container{
		"containers": pod.Containers, "initContainers": pod.InitContainers,
	} {
		for i, c := range containers {
			if c.Name == sandbox.RouterContainer {
				return fmt.Errorf("spec.template.spec.%s[%d].name: %q is the name of the router that each test's pod gets; "+
					"choose another one", field, i, c.Name)
			}
		}
	}
	for i, v := range pod.Volumes {
		if strings.HasPrefix(v.Name, sandbox.RouterContainer) {
			return fmt.Errorf("spec.template.spec.volumes[%d].name: %q: names that begin with %s are those of the router "+
				"that each test's pod gets; choose another one",
				i, v.Name, sandbox.RouterContainer)
		}
	}
	return nil
}

// exported removes from a Job what the cluster has added and what would prevent creating another Job from it.
func exported(job *batchv1.Job) *batchv1.Job {
	if job.UID == "" {
		return job
	}
	given := []string{batchv1.ControllerUidLabel, batchv1.JobNameLabel, "controller-uid", "job-name"}
	for _, labels := range []map[string]string{job.Labels, job.Spec.Template.Labels} {
		for _, label := range given {
			delete(labels, label)
		}
	}
	job.Spec.Selector, job.Status = nil, batchv1.JobStatus{}
	job.ObjectMeta = metav1.ObjectMeta{
		Name: job.Name, Namespace: job.Namespace, Labels: job.Labels, Annotations: job.Annotations,
	}
	return job
}

func (c *Check) annotations(all map[string]string) error {
	for name, value := range all {
		if !strings.HasPrefix(name, sandbox.Prefix) {
			continue
		}
		var err error
		switch name {
		case sandbox.AnnotationKind:
			c.Kind = Kind(value)
			if !slices.Contains([]Kind{E2E, Load, Contract}, c.Kind) {
				err = fmt.Errorf("%q is not one of %s, %s and %s", value, E2E, Load, Contract)
			}
		case sandbox.AnnotationRequired:
			if c.Required, err = strconv.ParseBool(value); err != nil {
				err = fmt.Errorf("%q is neither true nor false", value)
			}
		case sandbox.AnnotationTimeout:
			c.Timeout, err = parseTimeout(value)
		case sandbox.AnnotationServices:
			c.Services, err = ParseServiceRefs(value)
		case sandbox.AnnotationThresholds: // read by NewCheck, once it knows what the check is
		case sandbox.AnnotationOutgoing:
			if value != sandbox.OutgoingOff {
				err = fmt.Errorf("%q is not %q", value, sandbox.OutgoingOff)
			}
		default:
			err = errors.New("is none that a check can have")
		}
		if err != nil {
			return fmt.Errorf("annotation %s: %w", name, err)
		}
	}
	return nil
}

func parseTimeout(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil || d < time.Second {
		return 0, fmt.Errorf("%q is not a duration of a second or more, such as 90s or 5m", s)
	}
	return d, nil
}

// ParseServiceRefs reads "SERVICE[.NAMESPACE][:PORT], ...".
func ParseServiceRefs(s string) ([]ServiceRef, error) {
	var refs []ServiceRef
	for part := range strings.SplitSeq(s, ",") {
		part = strings.TrimSpace(part)
		name, port, has := strings.Cut(part, ":")
		service, namespace, other := strings.Cut(name, ".")
		if len(validation.IsDNS1123Label(service)) > 0 || other && len(validation.IsDNS1123Label(namespace)) > 0 {
			return nil, fmt.Errorf("%q is not SERVICE[.NAMESPACE][:PORT]", part)
		}
		if has && len(validation.IsValidPortName(port)) > 0 {
			if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
				return nil, fmt.Errorf("%q: %q is not a port", part, port)
			}
		}
		if slices.ContainsFunc(refs, func(r ServiceRef) bool { return r.Name == name }) {
			return nil, fmt.Errorf("%q is given twice", name)
		}
		refs = append(refs, ServiceRef{name, port})
	}
	return refs, nil
}
