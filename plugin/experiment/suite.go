// Package experiment decides about experiments: from a suite of checks and the variants to check it makes Jobs, and from what was
// seen while they ran it makes verdicts. It is pure: it neither reads nor writes a cluster, a clock or a file.
package experiment

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	"sigs.k8s.io/json"
	"sigs.k8s.io/yaml"

	"github.com/kubectl-sandbox/kubectl-sandbox/webhook/sandbox"
)

// A Kind says what a check looks at, and so how it is run.
type Kind string

// Kinds.
const (
	E2E      Kind = "e2e"      // whether it works: the default
	Load     Kind = "load"     // how fast it is; such a check runs while no other does
	Contract Kind = "contract" // whether it still answers as its callers expect
)

// maxCheckName is the longest name of a check, in bytes: it is a label, and part of the names of Jobs.
const maxCheckName = 40

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

// String writes r as it is written in the annotation.
func (r ServiceRef) String() string {
	if r.Port == "" {
		return r.Name
	}
	return r.Name + ":" + r.Port
}

// ParseSuite reads a suite: YAML or JSON documents, each a Job of batch/v1. An error names the file, the document and the field.
func ParseSuite(file string, data []byte) ([]Check, error) {
	docs := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	var checks []Check
	for n := 1; ; n++ {
		doc, err := docs.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		at := fmt.Sprintf("%s, document %d", file, n)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
		var content any
		if err := yaml.Unmarshal(doc, &content); err == nil && content == nil {
			continue // comments alone
		}
		c, err := parseCheck(doc)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", at, err)
		}
		c.Source = at
		same := func(o Check) bool { return o.Name == c.Name }
		if i := slices.IndexFunc(checks, same); i >= 0 {
			return nil, fmt.Errorf("%s: metadata.name: there is a check %q already, in %s", at, c.Name, checks[i].Source)
		}
		checks = append(checks, c)
	}
	if len(checks) == 0 {
		return nil, fmt.Errorf("%s: holds no Job", file)
	}
	return checks, nil
}

func parseCheck(doc []byte) (Check, error) {
	var kind metav1.TypeMeta
	if err := yaml.Unmarshal(doc, &kind); err != nil {
		return Check{}, plain(err)
	}
	if kind.APIVersion != "batch/v1" || kind.Kind != "Job" {
		return Check{}, fmt.Errorf("apiVersion, kind: a check is a Job of batch/v1, and this is %q of %q", kind.Kind, kind.APIVersion)
	}
	asJSON, err := yaml.YAMLToJSONStrict(doc)
	if err != nil {
		return Check{}, plain(err)
	}
	job := &batchv1.Job{}
	// What this program does not know would not reach the cluster.
	strict, err := json.UnmarshalStrict(asJSON, job)
	if err = errors.Join(append(strict, err)...); err != nil {
		return Check{}, plain(err)
	}
	return NewCheck(job)
}

// plain takes the parser's own name off an error.
func plain(err error) error {
	s := err.Error()
	for _, prefix := range []string{"error converting YAML to JSON: ", "error unmarshaling JSON: ", "while decoding JSON: ", "yaml: ", "json: "} {
		s = strings.TrimPrefix(s, prefix)
	}
	return errors.New(s)
}

// FromCronJob makes a check of what a CronJob runs. It has the CronJob's name, the end of which gives way to a hash where it is longer
// than a check's.
func FromCronJob(c *batchv1.CronJob) (Check, error) {
	job := &batchv1.Job{ObjectMeta: *c.Spec.JobTemplate.ObjectMeta.DeepCopy(), Spec: *c.Spec.JobTemplate.Spec.DeepCopy()}
	job.Name = sandbox.CutName(c.Name, maxCheckName)
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
	c := Check{Name: job.Name, Kind: E2E, Required: true, Job: job}
	switch {
	case job.Name == "":
		return c, errors.New("metadata.name: must be set: it is the check's name")
	case len(validation.IsDNS1123Label(job.Name)) > 0:
		return c, fmt.Errorf("metadata.name: %q must consist of lowercase letters, digits and '-', and begin and end with a letter or digit", job.Name)
	case len(job.Name) > maxCheckName:
		return c, fmt.Errorf("metadata.name: %q must be at most %d characters long, is %d", job.Name, maxCheckName, len(job.Name))
	case len(job.Spec.Template.Spec.Containers) == 0:
		return c, errors.New("spec.template.spec.containers: must not be empty")
	case job.Spec.Selector != nil || job.Spec.ManualSelector != nil && *job.Spec.ManualSelector:
		return c, errors.New("spec.selector: must be left out: each variant gets a Job of its own")
	case job.Spec.Template.Spec.HostNetwork:
		return c, errors.New("spec.template.spec.hostNetwork: must be left out: the pod gets a router, whose ports would be its node's")
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
			return c, fmt.Errorf("annotation %s: is of built-in checks (image: %s); a Job of one's own is judged by its exit status: "+
				"give the thresholds to its tool", sandbox.AnnotationThresholds, ProbeImage)
		}
		return c, nil
	}
	if _, said := job.Annotations[sandbox.AnnotationKind]; said && c.Kind != c.Probe.kind() {
		return c, fmt.Errorf("annotation %s: %q, and the container's args are those of a check of %s", sandbox.AnnotationKind, c.Kind, c.Probe.kind())
	}
	c.Kind = c.Probe.kind()
	if err := c.Probe.thresholds(thresholds); err != nil {
		return c, fmt.Errorf("annotation %s: %w", sandbox.AnnotationThresholds, err)
	}
	return c, nil
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
				err = fmt.Errorf("%q is none of %s, %s and %s", value, E2E, Load, Contract)
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
				return nil, fmt.Errorf("%q: %q is no port", part, port)
			}
		}
		if slices.ContainsFunc(refs, func(r ServiceRef) bool { return r.Name == name }) {
			return nil, fmt.Errorf("%q comes twice", name)
		}
		refs = append(refs, ServiceRef{name, port})
	}
	return refs, nil
}
