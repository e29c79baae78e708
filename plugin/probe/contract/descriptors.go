package contract

import (
	"fmt"
	"slices"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/kubectl-sandbox/kubectl-sandbox/plugin/experiment/result"
)

// services are the definitions of a server, by full name.
type services map[protoreflect.FullName]protoreflect.ServiceDescriptor

// compareServices returns what breaks in is for callers that were built for base, in the wire format or in generated
// code: https://protobuf.dev/programming-guides/proto3/#updating. Additions break nobody.
func compareServices(base, is services) []result.Finding {
	c := &comparison{seen: map[[2]protoreflect.FullName]bool{}}
	names := make([]protoreflect.FullName, 0, len(base))
	for name := range base {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		if is[name] == nil {
			c.operation = string(name)
			c.add(result.ReasonServiceRemoved, "", "the variant does not serve it")
			continue
		}
		c.service(base[name], is[name])
	}
	return c.found
}

type comparison struct {
	operation string
	found     []result.Finding
	// seen holds the pairs of messages that were compared: definitions may be circular.
	seen map[[2]protoreflect.FullName]bool
}

func (c *comparison) add(reason result.Reason, path, message string) {
	c.found = append(c.found, result.Finding{Reason: reason, Operation: c.operation, Path: path, Message: message})
}

func (c *comparison) service(was, is protoreflect.ServiceDescriptor) {
	for i := range was.Methods().Len() {
		m := was.Methods().Get(i)
		c.operation = methodName(m)
		now := is.Methods().ByName(m.Name())
		if now == nil {
			c.add(result.ReasonMethodRemoved, "", "the variant's service does not have it")
			continue
		}
		if a, b := streaming(m), streaming(now); a != b {
			c.add(result.ReasonStreamingChanged, "", fmt.Sprintf("it is %s, and %s in the baseline", b, a))
		}
		for _, side := range []struct {
			name    string
			was, is protoreflect.MessageDescriptor
		}{{"request", m.Input(), now.Input()}, {"response", m.Output(), now.Output()}} {
			if side.was.FullName() != side.is.FullName() {
				c.add(result.ReasonMessageTypeChange, side.name, fmt.Sprintf("it is %s, and %s in the baseline", side.is.FullName(), side.was.FullName()))
			}
			c.message(side.was, side.is)
		}
	}
}

func methodName(m protoreflect.MethodDescriptor) string {
	return string(m.Parent().FullName()) + "/" + string(m.Name())
}

func streaming(m protoreflect.MethodDescriptor) string {
	switch {
	case m.IsStreamingClient() && m.IsStreamingServer():
		return "streaming both ways"
	case m.IsStreamingClient():
		return "client streaming"
	case m.IsStreamingServer():
		return "server streaming"
	}
	return "unary"
}

// message compares two messages and those in their fields. A message's findings are reported for the first operation
// that uses it.
func (c *comparison) message(was, is protoreflect.MessageDescriptor) {
	pair := [2]protoreflect.FullName{was.FullName(), is.FullName()}
	if c.seen[pair] {
		return
	}
	c.seen[pair] = true
	for i := range was.Fields().Len() {
		f := was.Fields().Get(i)
		path := string(was.FullName()) + "." + string(f.Name())
		now := is.Fields().ByNumber(f.Number())
		if now == nil {
			if moved := is.Fields().ByName(f.Name()); moved != nil {
				c.add(result.ReasonNumberChanged, path, fmt.Sprintf("its number is %d, and %d in the baseline", moved.Number(), f.Number()))
			} else {
				c.add(result.ReasonFieldRemoved, path, fmt.Sprintf("the variant's message has no field %d", f.Number()))
			}
			continue
		}
		c.field(path, f, now)
	}
	for i := range is.Fields().Len() {
		f := is.Fields().Get(i)
		if old := was.Fields().ByNumber(f.Number()); f.Cardinality() == protoreflect.Required && (old == nil || old.Cardinality() != protoreflect.Required) {
			c.add(result.ReasonNewRequired, string(was.FullName())+"."+string(f.Name()), "it is required, and not in the baseline")
		}
	}
}

func (c *comparison) field(path string, was, is protoreflect.FieldDescriptor) {
	if a, b := typeOf(was), typeOf(is); a != b {
		c.add(result.ReasonTypeChanged, path, fmt.Sprintf("it is %s, and %s in the baseline", b, a))
		return
	}
	if a, b := oneof(was), oneof(is); a != b {
		c.add(result.ReasonOneofChanged, path, fmt.Sprintf("it is in %s, and in %s in the baseline", b, a))
	}
	switch {
	case was.IsMap(): // its entry is a message that nothing else uses
		c.field(path, was.MapValue(), is.MapValue())
	case was.Message() != nil:
		c.message(was.Message(), is.Message())
	case was.Enum() != nil:
		c.enum(was.Enum(), is.Enum())
	}
}

func (c *comparison) enum(was, is protoreflect.EnumDescriptor) {
	pair := [2]protoreflect.FullName{was.FullName(), is.FullName()}
	if c.seen[pair] {
		return
	}
	c.seen[pair] = true
	for i := range was.Values().Len() {
		v := was.Values().Get(i)
		if is.Values().ByNumber(v.Number()) == nil {
			c.add(result.ReasonEnumValueRemoved, string(was.FullName())+"."+string(v.Name()), fmt.Sprintf("the variant's enum has no value %d", v.Number()))
		}
	}
}

// typeOf names a field's type as a definition would.
func typeOf(f protoreflect.FieldDescriptor) string {
	if f.IsMap() {
		return "map<" + typeOf(f.MapKey()) + ", " + typeOf(f.MapValue()) + ">"
	}
	name := f.Kind().String()
	switch {
	case f.Message() != nil:
		name = string(f.Message().FullName())
	case f.Enum() != nil:
		name = string(f.Enum().FullName())
	}
	if f.IsList() {
		return "repeated " + name
	}
	return name
}

// oneof returns the name of a field's oneof, unless that only implements "optional".
func oneof(f protoreflect.FieldDescriptor) string {
	if o := f.ContainingOneof(); o != nil && !o.IsSynthetic() {
		return "the oneof " + string(o.Name())
	}
	return "none"
}
