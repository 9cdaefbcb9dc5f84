// The main program of every sanitizer driver.
#include "sanitize.h"

int main() { run_cases(); }
