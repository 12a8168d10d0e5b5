"""Run records, their files, the benchmark table and the statistics over them. Imports no torch."""

from swiftvlm_eval.results.benchmarks import Benchmark, BenchmarkTable, load_benchmarks, shipped_benchmarks
from swiftvlm_eval.results.importing import import_run
from swiftvlm_eval.results.record import RunRecord
from swiftvlm_eval.results.reproduce import reproduce
from swiftvlm_eval.results.samples import SampleLine
from swiftvlm_eval.results.store import Problem, StoredRun, load_records, read_record, write_record

__all__ = [
    "Benchmark",
    "BenchmarkTable",
    "Problem",
    "RunRecord",
    "SampleLine",
    "StoredRun",
    "import_run",
    "load_benchmarks",
    "load_records",
    "read_record",
    "reproduce",
    "shipped_benchmarks",
    "write_record",
]
