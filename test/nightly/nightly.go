// Package nightly sizes tests: small for every change, large for `make nightly`.
package nightly

import "os"

// Variable is the environment variable that makes tests large, if it is not empty.
const Variable = "HINDSIGHT_TEST_NIGHTLY"

// Size returns the size of a test.
func Size(always, nightly int) int {
	if os.Getenv(Variable) != "" {
		return nightly
	}
	return always
}
