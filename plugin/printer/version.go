package printer

import (
	"encoding/json"
	"fmt"
	"io"

	"sigs.k8s.io/yaml"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/cluster/read"
)

// Versions is what `version` prints.
type Versions struct {
	Client         string `json:"clientVersion"`
	*read.Versions        // nil: unknown, or not requested
}

// Print prints the versions in a format: "json", "yaml", or text if it is empty.
func (v Versions) Print(out io.Writer, format string) error {
	switch format {
	case "json":
		b, err := json.MarshalIndent(v, "", "  ")
		if err != nil {
			return err
		}
		fmt.Fprintf(out, "%s\n", b)
		return nil
	case "yaml":
		b, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = out.Write(b)
		return err
	}
	v.text(out)
	return nil
}

func (v Versions) text(out io.Writer) {
	fmt.Fprintf(out, "Client Version: %s\n", v.Client)
	if v.Versions == nil {
		return
	}
	webhook := v.Webhook
	switch {
	case webhook == "" && v.WebhookUnknown != "":
		webhook = "unknown (" + v.WebhookUnknown + ")"
	case webhook == "":
		webhook = "not installed"
	}
	fmt.Fprintf(out, "Webhook Version: %s\n", webhook)
	if len(v.Routers) == 0 {
		fmt.Fprintln(out, "Router Version: none here")
	}
	for _, r := range v.Routers {
		fmt.Fprintf(out, "Router Version: %s (%d pods)\n", r.Version, r.Pods)
	}
}
