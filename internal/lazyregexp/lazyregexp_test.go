package lazyregexp

import "testing"

func TestCompiledOnceOnFirstUse(t *testing.T) {
	invalid, valid := New("("), New("a+")
	if first := valid(); first != valid() || !first.MatchString("aa") {
		t.Error("the expression is not compiled once")
	}
	defer func() {
		if recover() == nil {
			t.Error("an invalid expression does not panic")
		}
	}()
	invalid()
}
