package readme

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"

	"sigs.k8s.io/yaml"
)

// The table of the chart's values stands between these lines.
const (
	valuesBegin = "<!-- values: made by `make docs` -->"
	valuesEnd   = "<!-- end of values -->"
)

// Values returns a Markdown table of a chart's values, in the order of its JSON schema: name, default and description. It fails where a
// value has no description.
func Values(schema, values []byte) (string, error) {
	var defaults map[string]any
	if err := yaml.Unmarshal(values, &defaults); err != nil {
		return "", fmt.Errorf("values.yaml: %w", err)
	}
	var root node
	if err := json.Unmarshal(schema, &root); err != nil {
		return "", fmt.Errorf("values.schema.json: %w", err)
	}
	var out strings.Builder
	out.WriteString("| value | default | meaning |\n|---|---|---|\n")
	if err := root.write(&out, "", defaults); err != nil {
		return "", err
	}
	return out.String(), nil
}

// A node of a JSON schema, as far as the table is concerned.
type node struct {
	Description string
	Properties  properties
}

// write writes a row for each value that holds no others.
func (n *node) write(out *strings.Builder, prefix string, defaults map[string]any) error {
	for _, p := range n.Properties {
		name := prefix + p.name
		if p.Description == "" {
			return fmt.Errorf("values.schema.json: %s has no description", name)
		}
		if len(p.Properties) > 0 {
			within, _ := defaults[p.name].(map[string]any)
			if err := p.write(out, name+".", within); err != nil {
				return err
			}
			continue
		}
		fmt.Fprintf(out, "| `%s` | %s | %s |\n", name, defaultOf(defaults, p.name), strings.ReplaceAll(p.Description, "|", `\|`))
	}
	return nil
}

func defaultOf(defaults map[string]any, name string) string {
	v, ok := defaults[name]
	if !ok || v == "" {
		return ""
	}
	text, err := json.Marshal(v)
	if err != nil {
		return "" // YAML that was decoded always encodes
	}
	return "`" + strings.Trim(string(text), `"`) + "`"
}

// properties are in the order of the document.
type properties []property

type property struct {
	name string
	node
}

// UnmarshalJSON keeps the order, which a map would not.
func (p *properties) UnmarshalJSON(data []byte) error {
	d := json.NewDecoder(bytes.NewReader(data))
	if _, err := d.Token(); err != nil { // the opening brace
		return err
	}
	for d.More() {
		name, err := d.Token()
		if err != nil {
			return err
		}
		next := property{name: fmt.Sprint(name)}
		if err := d.Decode(&next.node); err != nil {
			return err
		}
		*p = append(*p, next)
	}
	return nil
}

// WithValues returns the text with what stands between the marks of the table replaced.
func WithValues(markdown, table string) (string, error) {
	return between(markdown, valuesBegin, valuesEnd, table)
}
