package work

import "testing"

// The log's judge must be able to condemn.
func TestJudge(t *testing.T) {
	for log, good := range map[string]bool{
		"1 1\n1 2\n1 3\n1 4\n":                true,
		"1 1\n1 2\n1 4\n":                     true, // of 3 it does not know
		"0 1\n1 1\n0 2\n1 2\n1 3\n1 4\n":      true,
		"1 1\n1 3\n1 4\n":                     false, // lost
		"1 1\n1 2\n1 3\n":                     false,
		"1 1\n1 2\n1 2\n1 3\n1 4\n":           false, // twice
		"1 1\n1 2\n1 3\n1 3\n1 4\n":           false,
		"1 1\n1 2\n1 3\n1 4\n1 4\n":           false,
		"1 1\n1 2\n1 4\n1 3\n":                false, // too late
		"1 1\n1 2\n1 3\n1 4\n1 5\n":           false, // of nobody
		"1 1\n1 2\n1 3\n1 4":                  false, // torn
		"1 1\n1 \n1 2\n1 3\n1 4\n":            false,
		"":                                    false,
		"0 1\n0 2\n0 3\n":                     false,
		"1 1\n0 1\n1 2\n0 1\n1 3\n0 1\n1 4\n": true, // 0 has a judge of its own
	} {
		err := Judge(log, 1, Report{Lines: 4, Maybe: []int{3}})
		if (err == nil) != good {
			t.Errorf("%q: %v", log, err)
		}
	}
}
