// Package suite reads suites of checks, and creates the Jobs of an experiment from a suite and the variants. It is
// pure: it accesses no cluster, no clock and no file.
package suite

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	batchv1 "k8s.io/api/batch/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	utilyaml "k8s.io/apimachinery/pkg/util/yaml"
	strictjson "sigs.k8s.io/json"
	"sigs.k8s.io/yaml"
)

// A Suite is the content of suite files: checks, and the objects that their Jobs use.
type Suite struct {
	Checks  []Check
	Objects []Object
}

// Parse reads a suite: YAML or JSON documents. Each is a Job or a CronJob of batch/v1, an object that these use,
// or a List of these. An error names the file, the document and the field.
func Parse(file string, data []byte) (*Suite, error) {
	docs := utilyaml.NewYAMLReader(bufio.NewReader(bytes.NewReader(data)))
	s := &Suite{}
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
		object, err := yaml.YAMLToJSONStrict(doc)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", at, plain(err))
		}
		if err := s.add(at, object, metav1.TypeMeta{}); err != nil {
			return nil, err
		}
	}
	if len(s.Checks) == 0 {
		return nil, fmt.Errorf("%s: holds no Job", file)
	}
	return s, nil
}

// Join adds the content of another file.
func (s *Suite) Join(o *Suite) error {
	for _, c := range o.Checks {
		if err := s.addCheck(c); err != nil {
			return err
		}
	}
	for _, object := range o.Objects {
		if err := s.addObject(object); err != nil {
			return err
		}
	}
	return nil
}

// add reads one object. Items of a typed list have the list's type unless they state their own.
func (s *Suite) add(at string, object []byte, typed metav1.TypeMeta) error {
	kind := typed
	if err := json.Unmarshal(object, &kind); err != nil {
		return fmt.Errorf("%s: %w", at, plain(err))
	}
	var err error
	switch {
	case strings.HasSuffix(kind.Kind, "List"):
		return s.addList(at, object, kind)
	case kind.APIVersion == "batch/v1" && kind.Kind == "Job":
		job := &batchv1.Job{}
		if err = strictly(object, job); err == nil {
			var c Check
			if c, err = NewCheck(exported(job)); err == nil {
				c.Source = at
				return s.addCheck(c)
			}
		}
	case kind.APIVersion == "batch/v1" && kind.Kind == "CronJob":
		cron := &batchv1.CronJob{}
		if err = strictly(object, cron); err == nil {
			var c Check
			if c, err = FromCronJob(cron); err == nil {
				c.Source = at
				return s.addCheck(c)
			}
		}
	default:
		o := newObject(kind)
		if o == nil {
			return fmt.Errorf("%s: apiVersion, kind: %q of %q is neither a check, which is a Job or a CronJob "+
				"of batch/v1, nor a ConfigMap, Secret, "+
				"ServiceAccount or PersistentVolumeClaim of v1 that one uses; apply it before the test, "+
				"and leave it out of the suite", at, kind.Kind, kind.APIVersion)
		}
		if err = strictly(object, o); err == nil {
			if err = validObject(o); err == nil {
				return s.addObject(Object{o, kind.Kind, at})
			}
		}
	}
	return fmt.Errorf("%s: %w", at, err)
}

func (s *Suite) addList(at string, object []byte, kind metav1.TypeMeta) error {
	var list struct {
		Items []json.RawMessage `json:"items"`
	}
	if err := json.Unmarshal(object, &list); err != nil {
		return fmt.Errorf("%s: %w", at, plain(err))
	}
	var of metav1.TypeMeta
	if of.Kind = strings.TrimSuffix(kind.Kind, "List"); of.Kind != "" {
		of.APIVersion = kind.APIVersion
	}
	for i, item := range list.Items {
		if err := s.add(fmt.Sprintf("%s, item %d", at, i+1), item, of); err != nil {
			return err
		}
	}
	return nil
}

func (s *Suite) addCheck(c Check) error {
	if i := slices.IndexFunc(s.Checks, func(o Check) bool { return o.Name == c.Name }); i >= 0 {
		return fmt.Errorf("%s: metadata.name: there is a check %q already, in %s", c.Source, c.Name, s.Checks[i].Source)
	}
	s.Checks = append(s.Checks, c)
	return nil
}

func (s *Suite) addObject(o Object) error {
	same := func(p Object) bool { return p.Kind == o.Kind && p.GetName() == o.GetName() }
	if i := slices.IndexFunc(s.Objects, same); i >= 0 {
		return fmt.Errorf("%s: metadata.name: there is a %s %q already, in %s",
			o.Source, o.Kind, o.GetName(), s.Objects[i].Source)
	}
	s.Objects = append(s.Objects, o)
	return nil
}

// Text formats the suite for another client of the same experiment. It contains no Secret's data: the objects exist
// when that client runs.
func (s *Suite) Text() (string, error) {
	var out strings.Builder
	write := func(o any) error {
		b, err := json.Marshal(o)
		fmt.Fprintf(&out, "---\n%s\n", b)
		return err
	}
	for _, c := range s.Checks {
		job := c.Job.DeepCopy()
		job.TypeMeta = metav1.TypeMeta{APIVersion: "batch/v1", Kind: "Job"}
		if err := write(job); err != nil {
			return "", err
		}
	}
	for _, o := range s.Objects {
		if err := write(o.Public()); err != nil {
			return "", err
		}
	}
	return out.String(), nil
}

// strictly decodes an object, and fails on fields that this program does not know: they would not reach the cluster.
func strictly(object []byte, into any) error {
	strict, err := strictjson.UnmarshalStrict(object, into)
	if err = errors.Join(append(strict, err)...); err != nil {
		return plain(err)
	}
	return nil
}

// plain removes the parser's name from an error.
func plain(err error) error {
	s := err.Error()
	for _, prefix := range []string{
		"error converting YAML to JSON: ", "error unmarshaling JSON: ", "while decoding JSON: ", "yaml: ", "json: ",
	} {
		s = strings.TrimPrefix(s, prefix)
	}
	return errors.New(s)
}
