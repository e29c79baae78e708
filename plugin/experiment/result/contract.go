package result

import "fmt"

// Contract is the result of a contract check.
type Contract struct {
	Header
	Protocol   Protocol    `json:"protocol"`
	Operations []Operation `json:"operations"`
	Findings   []Finding   `json:"findings,omitempty"`
	// Dropped is the number of findings that did not fit.
	Dropped int `json:"dropped,omitempty"`
}

// Protocol is how a contract was tested.
type Protocol string

// Protocols.
const (
	ProtocolOpenAPI Protocol = "openapi" // answers to requests, by an OpenAPI 3 document
	ProtocolGRPC    Protocol = "grpc"    // definitions, by server reflection
)

// An Operation is an operation that the contract names.
type Operation struct {
	Name string `json:"name"` // "GET /customer", "grpc.testing.TestService/EmptyCall"
	// Skipped is why it was not tested; empty if it was.
	Skipped string `json:"skipped,omitempty"`
	// Seen is indexed by arm.
	Seen []Seen `json:"seen,omitempty"`
}

// Seen is what an arm answered to the requests of an operation.
type Seen struct {
	Statuses map[int]int    `json:"statuses,omitempty"`
	ServedBy map[string]int `json:"servedBy,omitempty"` // x-sandbox-served-by; "" for answers without
}

// A Finding is a breach of the contract, or a difference from the baseline's behaviour that breaks callers.
type Finding struct {
	Arm       string `json:"arm"`
	Reason    Reason `json:"reason"`
	Operation string `json:"operation,omitempty"`
	// Path is the place in the answer or the message: "/items/*/price".
	Path    string `json:"path,omitempty"`
	Message string `json:"message"`
	// Baseline means that the baseline has the same finding, so the variant did not cause it. It is also set on
	// findings of the baseline itself.
	Baseline bool `json:"baseline,omitempty"`
}

// Reason is a stable code for what a finding is about.
type Reason string

// Reasons of findings about answers.
const (
	ReasonNoAnswer          Reason = "NoAnswer"          // no whole answer came
	ReasonNotServed         Reason = "NotServed"         // a router answered in place of the fork: x-sandbox-error
	ReasonStatusChanged     Reason = "StatusChanged"     // the status is none that the baseline answered with
	ReasonStatusUndeclared  Reason = "StatusUndeclared"  // the document does not declare the status
	ReasonContentType       Reason = "ContentType"       // the document does not declare the media type
	ReasonSchemaViolated    Reason = "SchemaViolated"    // the answer is not as the document says
	ReasonFieldGone         Reason = "FieldGone"         // what every answer of the baseline's has, this lacks
	ReasonTypeChanged       Reason = "TypeChanged"       // a value's type, or a message field's
	ReasonNewRequired       Reason = "NewRequired"       // requests must have what they need not have for the baseline
	ReasonOperationRemoved  Reason = "OperationRemoved"  // the variant's own document lacks it
	ReasonDocumentUnusable  Reason = "DocumentUnusable"  // the variant's own document or reflection cannot be read
	ReasonServiceRemoved    Reason = "ServiceRemoved"    // gRPC from here on
	ReasonMethodRemoved     Reason = "MethodRemoved"     //
	ReasonStreamingChanged  Reason = "StreamingChanged"  // unary, client, server or bidirectional
	ReasonFieldRemoved      Reason = "FieldRemoved"      // by number
	ReasonNumberChanged     Reason = "NumberChanged"     // a field's, by name
	ReasonEnumValueRemoved  Reason = "EnumValueRemoved"  // by number
	ReasonOneofChanged      Reason = "OneofChanged"      // a field came into a oneof, or left it
	ReasonMessageTypeChange Reason = "MessageTypeChange" // a method takes or returns another message
)

// MaxFindings bounds the findings of a result.
const MaxFindings = 10_000

// Validate returns what is wrong with c.
func (c Contract) Validate() error {
	if err := c.Header.Validate(KindContract); err != nil {
		return err
	}
	arms := make(map[string]bool, len(c.Arms))
	for _, a := range c.Arms {
		arms[a.Name] = true
	}
	if len(c.Findings) > MaxFindings {
		return fmt.Errorf("it has %d findings, more than %d", len(c.Findings), MaxFindings)
	}
	for _, f := range c.Findings {
		if !arms[f.Arm] || f.Reason == "" {
			return fmt.Errorf("a finding %.60q is of no arm: %.60q", f.Reason, f.Arm)
		}
	}
	for _, o := range c.Operations {
		if n := len(o.Seen); n != 0 && n != len(c.Arms) {
			return fmt.Errorf("operation %.200q has seen %d arms, and there are %d", o.Name, n, len(c.Arms))
		}
	}
	return nil
}
