# vae: `make run` and `make test` are the two commands; README.md has the rest.
# Variables: CC, CXX, NVCC, ARCH (CUDA targets), CUDA=0 (leave CUDA out), BUILD (folder), JOBS, V=1.

BUILD   ?= build
$(if $(word 2,$(BUILD)),$(error BUILD='$(BUILD)': make knows no names with a space; the source folder may have one))
CC      := $(if $(filter default,$(origin CC)),gcc,$(CC))
CXX     := $(if $(filter default,$(origin CXX)),g++,$(CXX))
VERSION := 0.1.0
GIT     := $(shell git describe --always --dirty 2>/dev/null || echo unknown)

WARN    := -Wall -Wextra -Wformat=2 -Wconversion -Wimplicit-fallthrough -Wshadow \
           -Wstrict-prototypes -Werror=format-security
HARDEN  := -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIC
CPPFLAGS := -D_GNU_SOURCE -Iinclude -Ihost -I$(BUILD)/gen -DVAE_VERSION='"$(VERSION)"' -DVAE_GIT='"$(GIT)"'
CFLAGS  ?= -O2 -g
# No fused multiply-adds: every instruction set level gives the same bits. The other two flags let
# loops with sqrt and selects vectorize and change no result.
MATH    := -ffp-contract=off -fno-math-errno -fno-trapping-math
C11     := -std=c11 -fopenmp $(WARN) $(MATH)
LDLIBS  := -ljansson -lpng -ljpeg -lgif -lzip -lz -lm -lpthread

# ---- CUDA: built in where nvcc is, left out (and said so) where it is not ----
CUDA    ?= 1
NVCC    ?= $(firstword $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA_HOME ?= $(patsubst %/bin/nvcc,%,$(realpath $(NVCC)))
ARCH    ?= sm_80 sm_90a ptx_90
HAVE_CUDA := $(if $(filter-out 0,$(CUDA)),$(if $(NVCC),$(if $(wildcard kernels/*.cu),1)))
gencode  = $(if $(filter ptx_%,$1),-gencode arch=compute_$(1:ptx_%=%)$(comma)code=compute_$(1:ptx_%=%),\
             -gencode arch=compute_$(1:sm_%=%)$(comma)code=$1)
comma   := ,
NVFLAGS := -std=c++17 -O3 -lineinfo -Iinclude -Ikernels $(foreach a,$(ARCH),$(call gencode,$(a))) \
           -Xcompiler -Wall,-Wextra,-fPIC,-fno-exceptions
CUDA_LIBS := -L$(CUDA_HOME)/lib64 -lcudart_static -ldl -lrt -lstdc++

# ---- sources ----
CUDA_C  := $(wildcard host/backend_cuda*.c)
CU      := $(wildcard kernels/*.cu)
FRONT   := host/main.c $(wildcard host/cli*.c)
CORE    := $(filter-out $(CUDA_C) $(FRONT) host/cpu_kernels.c,$(wildcard host/*.c))
ISAS    := baseline $(if $(filter x86_64,$(shell uname -m)),avx2 avx512)
MARCH_baseline :=
MARCH_avx2     := -march=x86-64-v3
MARCH_avx512   := -march=x86-64-v4 -mprefer-vector-width=512
HEADERS := $(wildcard include/*.h host/*.h)
REPORT_PAGE := $(BUILD)/gen/report_page.h

# objs FOLDER: the core objects of a variant (all but the CUDA backend and the front)
objs     = $(CORE:%.c=$(BUILD)/$1/%.o) $(ISAS:%=$(BUILD)/$1/host/cpu_kernels_%.o)
front    = $(FRONT:%.c=$(BUILD)/$1/%.o)
cudaobjs = $(if $(HAVE_CUDA),$(CUDA_C:%.c=$(BUILD)/$1/%.o) $(CU:%.cu=$(BUILD)/$1/%.cu.o))

JOBS    ?= $(shell nproc 2>/dev/null || echo 2)
# for a sub-make: all cores, unless this make already shares out jobs
J        = $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(JOBS))
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' '$1' '$2')

.PHONY: all run test check lint fuzz bench bundle check-gpu gpu-programs mnist deps test-deps clean
.DELETE_ON_ERROR:
.PRECIOUS: %.o

all: deps
	$(Q)$(MAKE) $(J) --no-print-directory $(BUILD)/vae

# ---- what it needs: installed when missing (Debian and its kin), named otherwise ----
deps:
	$(Q)data/install.sh build
test-deps:
	$(Q)data/install.sh build test

# ---- the two commands ----
run: all
	$(Q)$(BUILD)/vae train --data digits --out runs/first --force

test: test-deps
	$(Q)$(MAKE) $(J) --no-print-directory check

check:
	$(Q)$(MAKE) $(J) --no-print-directory test-programs $(BUILD)/vae lib \
	    $(BUILD)/roundtrip/random_model $(FUZZERS:%=$(BUILD)/fuzz/%)
	$(Q)BUILD=$(BUILD) tests/run.sh

mnist:
	$(Q)data/fetch_mnist.sh

# ---- the program ----
ifneq ($(HAVE_CUDA),1)
$(BUILD)/vae: | cuda-left-out
.PHONY: cuda-left-out
cuda-left-out:
	@echo '  note  built without CUDA: $(if $(filter 0,$(CUDA)),CUDA=0 was given,no nvcc on PATH or in /usr/local/cuda/bin)'
endif
WITH_CUDA := $(if $(HAVE_CUDA),-DVAE_WITH_CUDA)
RELEASE := $(CFLAGS) $(HARDEN)
$(BUILD)/vae: $(call objs,release) $(call front,release) $(call cudaobjs,release)
	$(call say,LD,$@)
	$(Q)$(CC) -fopenmp -pie -Wl,-z,relro,-z,now -o $@ $^ $(LDLIBS) $(if $(HAVE_CUDA),$(CUDA_LIBS))

# Whether CUDA is in decides what some objects hold: they are made anew when it changes.
$(BUILD)/cuda-$(if $(HAVE_CUDA),in,out).stamp:
	$(Q)mkdir -p $(@D) && rm -f $(BUILD)/cuda-*.stamp && touch $@

# The report's style and script are files of their own; the program has them as C strings.
$(REPORT_PAGE): host/report_page.css host/report_page.js Makefile
	$(Q)mkdir -p $(@D)
	$(Q)for kind in css js; do echo "static const char report_$$kind[] ="; \
	    sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/.*/    "&\\n"/' host/report_page.$$kind; echo '    ;'; done >$@
$(foreach v,release asan tsan,$(BUILD)/$v/host/report.o) lint: $(REPORT_PAGE)

# variant FOLDER,FLAGS: rules for the objects of one way to compile
define variant
$(BUILD)/$1/host/cpu_kernels_%.o: host/cpu_kernels.c $(HEADERS) Makefile
	$$(call say,CC,$$< ($$*))
	$$(Q)mkdir -p $$(@D)
	$$(Q)$$(CC) $$(C11) $$(CPPFLAGS) $2 -O3 $$(MARCH_$$*) -DVAE_ISA=$$* -c -o $$@ $$<
$(BUILD)/$1/host/backend_cuda%.o: host/backend_cuda%.c $(HEADERS) Makefile
	$$(call say,CC,$$<)
	$$(Q)mkdir -p $$(@D)
	$$(Q)$$(CC) $$(C11) $$(CPPFLAGS) $$(WITH_CUDA) -isystem $$(CUDA_HOME)/include $2 -c -o $$@ $$<
$(BUILD)/$1/host/%.o: host/%.c $(HEADERS) Makefile
	$$(call say,CC,$$<)
	$$(Q)mkdir -p $$(@D)
	$$(Q)$$(CC) $$(C11) $$(CPPFLAGS) $$(WITH_CUDA) $2 -c -o $$@ $$<
$(BUILD)/$1/kernels/%.cu.o: kernels/%.cu $(HEADERS) $(wildcard kernels/*.h) Makefile
	$$(call say,NVCC,$$<)
	$$(Q)mkdir -p $$(@D)
	$$(Q)$$(NVCC) $$(NVFLAGS) -c -o $$@ $$<
$(BUILD)/$1/host/backend.o: $(BUILD)/cuda-$(if $(HAVE_CUDA),in,out).stamp
endef
$(eval $(call variant,release,$(RELEASE)))

# ---- tests: everything under AddressSanitizer and UBSan ----
SAN     := -O1 -g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
TESTS   := $(filter-out tests/test_curand.c,$(shell grep -l '^int main' tests/test_*.c))
TEST_BINS := $(TESTS:tests/%.c=$(BUILD)/test/%)

$(BUILD)/asan/host/cpu_kernels_%.o: host/cpu_kernels.c $(HEADERS) Makefile
	$(call say,CC,$< ($*$(comma) asan))
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(C11) $(CPPFLAGS) $(SAN) -O2 $(MARCH_$*) -DVAE_ISA=$* -c -o $@ $<
$(BUILD)/asan/%.o: %.c $(HEADERS) $(wildcard tests/*.h) Makefile
	$(call say,CC,$< (asan))
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(C11) $(CPPFLAGS) -Itests $(SAN) -c -o $@ $<
TEST_HELP := $(patsubst tests/%.c,$(BUILD)/asan/tests/%.o,$(filter-out $(TESTS) tests/test_curand.c \
             $(wildcard tests/fuzz_*.c),$(wildcard tests/*.c)))
$(BUILD)/test/%: $(BUILD)/asan/tests/%.o $(TEST_HELP) $(call objs,asan)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(SAN) -fopenmp -o $@ $^ -lcmocka $(LDLIBS)
$(BUILD)/test/vae: $(call objs,asan) $(call front,asan)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(SAN) -fopenmp -o $@ $^ $(LDLIBS)

# cuRAND's own words, where the toolkit is: its host generator needs no GPU
$(BUILD)/test/test_curand: tests/test_curand.c tests/curand_device.cc $(TEST_HELP) $(call objs,asan)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CXX) -std=c++17 $(SAN) $(CPPFLAGS) -isystem $(CUDA_HOME)/include -c -o $(@D)/curand_device.o \
	    tests/curand_device.cc
	$(Q)$(CC) $(C11) $(CPPFLAGS) -Itests -isystem $(CUDA_HOME)/include $(SAN) -o $@ tests/test_curand.c \
	    $(@D)/curand_device.o $(filter %.o,$^) -L$(CUDA_HOME)/lib64 -Wl,-rpath,$(CUDA_HOME)/lib64 \
	    -lcurand -lcmocka -lstdc++ $(LDLIBS)
ifeq ($(HAVE_CUDA)$(wildcard $(CUDA_HOME)/include/curand.h),1$(CUDA_HOME)/include/curand.h)
test-programs: $(BUILD)/test/test_curand
endif

.PHONY: test-programs
test-programs: $(TEST_BINS) $(BUILD)/test/vae

# ---- libvae: position-independent objects, one symbol list (host/libvae.map) for both kinds ----
SOVERSION := 0
PREFIX    ?= /usr/local
LIBSO     := $(BUILD)/lib/libvae.so.$(VERSION)
LIB_MAP   := host/libvae.map
$(LIBSO): $(call objs,release) $(call cudaobjs,release) $(LIB_MAP)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -shared -fopenmp -Wl,-soname,libvae.so.$(SOVERSION) -Wl,--version-script=$(LIB_MAP) \
	    -Wl,-z,relro,-z,now,-z,defs -o $@ $(filter %.o,$^) $(LDLIBS) $(if $(HAVE_CUDA),$(CUDA_LIBS))
	$(Q)ln -sf $(@F) $(@D)/libvae.so.$(SOVERSION)
	$(Q)ln -sf libvae.so.$(SOVERSION) $(@D)/libvae.so
# One object in which only the public names are global.
$(BUILD)/lib/libvae.a: $(call objs,release) $(call cudaobjs,release) $(LIB_MAP)
	$(call say,AR,$@)
	$(Q)mkdir -p $(@D)
	$(Q)sed -n 's/^ *\(vae_[a-z_]*\);$$/\1/p' $(LIB_MAP) >$(@D)/libvae.names
	$(Q)$(LD) -r -o $(@D)/libvae.o $(filter %.o,$^)
	$(Q)objcopy --keep-global-symbols=$(@D)/libvae.names $(@D)/libvae.o
	$(Q)rm -f $@ && $(AR) rcs $@ $(@D)/libvae.o
INTO       = $(DESTDIR)$(PREFIX)
.PHONY: lib install
lib: $(LIBSO) $(BUILD)/lib/libvae.a
install: deps
	$(Q)$(MAKE) $(J) --no-print-directory $(BUILD)/vae lib
	$(Q)install -d "$(INTO)/bin" "$(INTO)/include" "$(INTO)/lib/pkgconfig"
	$(Q)install -m 755 $(BUILD)/vae "$(INTO)/bin/vae"
	$(Q)install -m 644 include/vae.h "$(INTO)/include/vae.h"
	$(Q)install -m 755 $(LIBSO) "$(INTO)/lib/"
	$(Q)install -m 644 $(BUILD)/lib/libvae.a "$(INTO)/lib/"
	$(Q)ln -sf libvae.so.$(VERSION) "$(INTO)/lib/libvae.so.$(SOVERSION)"
	$(Q)ln -sf libvae.so.$(SOVERSION) "$(INTO)/lib/libvae.so"
	$(Q)sed -e 's|@PREFIX@|$(PREFIX)|; s|@VERSION@|$(VERSION)|' \
	    -e 's|@LDLIBS@|$(LDLIBS) -lgomp $(if $(HAVE_CUDA),$(CUDA_LIBS))|' host/libvae.pc.in \
	    >"$(INTO)/lib/pkgconfig/libvae.pc"

# ---- round trips with readers from the registry ----
$(BUILD)/roundtrip/random_model: tests/roundtrip/random_model.c $(call objs,release) $(call cudaobjs,release)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(C11) $(CPPFLAGS) $(RELEASE) -pie -o $@ $(filter %.c %.o,$^) $(LDLIBS) $(if $(HAVE_CUDA),$(CUDA_LIBS))
.PHONY: roundtrip
roundtrip: deps
	$(Q)$(MAKE) $(J) --no-print-directory $(BUILD)/vae $(BUILD)/roundtrip/random_model lib
	$(Q)BUILD=$(BUILD) tests/roundtrip/run.sh
	$(Q)BUILD=$(BUILD) tests/roundtrip/installed.sh

# ---- the CUDA backend on the host: kernels and backend_cuda*.c over tests/simt ----
SIMT_CC  := $(wildcard tests/simt/simt_*.cc)
SIMT_INC := -Itests/simt/include -Itests/simt
SIMT_DEP := $(HEADERS) $(wildcard kernels/*.h tests/*.h tests/simt/*.h tests/simt/include/*.h) Makefile
SIMT_BACKEND := $(CUDA_C) host/backend.c
simt     = $(SIMT_BACKEND:%.c=$(BUILD)/$1/%.o) $(CU:%.cu=$(BUILD)/$1/%.cu.o) \
           $(SIMT_CC:%.cc=$(BUILD)/$1/%.o)
SIMT_TESTS := test_ops test_ops_loss test_ops_classes test_model test_gradients test_score
simt_parts = $(filter-out %/backend.o,$(call objs,asan)) $(call simt,simt)

$(BUILD)/simt/%.cu.o: %.cu $(SIMT_DEP)
	$(call say,CXX,$< (emulated))
	$(Q)mkdir -p $(@D)
	$(Q)$(CXX) -std=c++17 -x c++ $(SAN) -Wall -Wextra $(MATH) $(SIMT_INC) -Iinclude -Ikernels -c -o $@ $<
$(BUILD)/simt/%.o: %.cc $(SIMT_DEP)
	$(call say,CXX,$<)
	$(Q)mkdir -p $(@D)
	$(Q)$(CXX) -std=c++17 $(SAN) -O2 -Wall -Wextra $(SIMT_INC) -Iinclude -c -o $@ $<
$(BUILD)/simt/%.o: %.c $(SIMT_DEP)
	$(call say,CC,$< (emulated))
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(C11) $(CPPFLAGS) -DVAE_WITH_CUDA $(SIMT_INC) -Itests $(SAN) -c -o $@ $<
$(SIMT_TESTS:%=$(BUILD)/simt/%): $(BUILD)/simt/%: $(BUILD)/asan/tests/%.o $(TEST_HELP) $(simt_parts)
	$(call say,LD,$@)
	$(Q)$(CXX) $(SAN) -fopenmp -o $@ $^ -lcmocka $(LDLIBS)
$(BUILD)/simt/vae: $(simt_parts) $(call front,asan)
	$(call say,LD,$@)
	$(Q)$(CXX) $(SAN) -fopenmp -o $@ $^ $(LDLIBS)
# the emulation's own tests: bugs planted in kernels and host code, each of which it must catch
SIMT_OWN := $(wildcard tests/simt/test_*.cc)
$(BUILD)/simt/test_simt: $(SIMT_OWN) $(SIMT_CC:%.cc=$(BUILD)/simt/%.o) $(SIMT_DEP) tests/simt/test_constants.c
	$(call say,LD,$@)
	$(Q)$(CC) -std=c11 -fsyntax-only -Itests/simt/include tests/simt/test_constants.c
	$(Q)$(if $(HAVE_CUDA),$(CC) -std=c11 -fsyntax-only -I$(CUDA_HOME)/include tests/simt/test_constants.c)
	$(Q)$(CXX) -std=c++17 $(SAN) -Itests/simt/include -o $@ $(filter %.cc %.o,$^) -lpthread
test-programs: $(SIMT_TESTS:%=$(BUILD)/simt/%) $(BUILD)/simt/vae $(BUILD)/simt/test_simt

.PHONY: coverage
coverage: test-deps
	$(Q)mkdir -p $(BUILD)
	$(Q)BUILD=$(BUILD) tests/simt/coverage.sh

# ThreadSanitizer, by clang, for races between CUDA threads: the step's tests on one CPU thread.
# The emulation itself is not instrumented: it tells the sanitizer what orders what.
TSAN     := -O1 -g -fno-omit-frame-pointer -fsanitize=thread -DSIMT_TSAN
TSAN_INC := $(SIMT_INC) -Iinclude -Ihost -Ikernels -Itests
TSAN_C   := $(CORE) $(CUDA_C) $(filter-out $(TESTS) $(wildcard tests/fuzz_*.c) tests/test_curand.c,$(wildcard tests/*.c))
tsan_parts = $(TSAN_C:%.c=$(BUILD)/tsan/%.o) $(CU:%.cu=$(BUILD)/tsan/%.cu.o) \
           $(SIMT_CC:%.cc=$(BUILD)/tsan/%.o) $(ISAS:%=$(BUILD)/tsan/host/cpu_kernels_%.o)
$(BUILD)/tsan/tests/simt/simt_%.o: tests/simt/simt_%.cc $(SIMT_DEP)
	$(call say,CXX,$< (tsan))
	$(Q)mkdir -p $(@D)
	$(Q)clang++ -std=c++17 -O2 -g -DSIMT_TSAN $(TSAN_INC) -c -o $@ $<
$(BUILD)/tsan/%.cu.o: %.cu $(SIMT_DEP)
	$(call say,CXX,$< (tsan))
	$(Q)mkdir -p $(@D)
	$(Q)clang++ -std=c++17 -x c++ $(TSAN) $(MATH) $(TSAN_INC) -c -o $@ $<
$(BUILD)/tsan/%.o: %.c $(SIMT_DEP)
	$(call say,CC,$< (tsan))
	$(Q)mkdir -p $(@D)
	$(Q)clang -std=gnu11 $(TSAN) $(MATH) $(CPPFLAGS) -Wno-unknown-pragmas -DVAE_WITH_CUDA $(TSAN_INC) -c -o $@ $<
$(BUILD)/tsan/host/cpu_kernels_%.o: host/cpu_kernels.c $(HEADERS) Makefile
	$(call say,CC,$< ($*$(comma) tsan))
	$(Q)mkdir -p $(@D)
	$(Q)clang -std=gnu11 $(CPPFLAGS) $(MATH) -O2 $(MARCH_$*) -DVAE_ISA=$* -c -o $@ $<
$(BUILD)/simt/test_model_tsan: $(BUILD)/tsan/tests/test_model.o $(tsan_parts)
	$(call say,LD,$@)
	$(Q)clang++ -fsanitize=thread -o $@ $^ -lcmocka $(LDLIBS) -lgomp -ldl
$(BUILD)/simt/test_simt_tsan: $(SIMT_OWN) $(SIMT_CC:%.cc=$(BUILD)/tsan/%.o) $(SIMT_DEP)
	$(call say,LD,$@)
	$(Q)clang++ -std=c++17 $(TSAN) -Itests/simt/include -o $@ $(filter %.cc %.o,$^) -lpthread
test-programs: $(BUILD)/simt/test_model_tsan $(BUILD)/simt/test_simt_tsan

# ---- style and static checks ----
lint: deps
	$(Q)data/install.sh test lint
	$(Q)clang-format --dry-run -Werror $(wildcard host/*.[ch] include/*.h kernels/*.cu kernels/*.h \
	    tests/*.[ch] tests/simt/*.[ch]* bench/*.c)
	$(Q)for f in $(filter-out $(CUDA_C),$(wildcard host/*.c)) bench/bench_step.c bench/bench_ops.c; do \
	    $(CC) $(C11) $(CPPFLAGS) -DVAE_ISA=baseline -Werror -fsyntax-only $$f || exit 1; done
	$(Q)cppcheck --quiet --std=c11 --enable=warning,portability --error-exitcode=1 --inline-suppr \
	    --suppress=missingIncludeSystem --suppress=normalCheckLevelMaxBranches -D_GNU_SOURCE \
	    -DVAE_ISA=baseline -DVAE_VERSION='""' -DVAE_GIT='""' -Iinclude -Ihost host
	$(Q)tests/scripts.sh

# ---- fuzzing: FUZZ_SECONDS for each parser, corpus kept in tests/corpus ----
FUZZ_SECONDS ?= 60
FUZZERS := $(patsubst tests/%.c,%,$(wildcard tests/fuzz_*.c))
FUZZ_SAN := -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all
# an archive, of which the linker takes what a fuzzer needs
$(BUILD)/fuzz/host/%.o: host/%.c $(HEADERS) Makefile
	$(call say,CC,$< (fuzz))
	$(Q)mkdir -p $(@D)
	$(Q)clang -std=gnu11 $(CPPFLAGS) $(FUZZ_SAN) -Wno-unknown-pragmas -c -o $@ $<
$(BUILD)/fuzz/libvae.a: $(CORE:%.c=$(BUILD)/fuzz/%.o)
	$(call say,AR,$@)
	$(Q)rm -f $@ && ar rcs $@ $^
$(BUILD)/fuzz/fuzz_%: tests/fuzz_%.c $(BUILD)/fuzz/libvae.a $(HEADERS) Makefile
	$(call say,FUZZ,$@)
	$(Q)clang -std=gnu11 $(CPPFLAGS) $(FUZZ_SAN) -Wno-unknown-pragmas -o $@ $< \
	    $(BUILD)/fuzz/libvae.a $(LDLIBS)
fuzz: deps
	$(Q)data/install.sh fuzz
	$(Q)$(MAKE) $(J) --no-print-directory $(FUZZERS:%=$(BUILD)/fuzz/%)
	$(Q)for f in $(FUZZERS); do mkdir -p tests/corpus/$$f; \
	    $(BUILD)/fuzz/$$f -max_total_time=$(FUZZ_SECONDS) -rss_limit_mb=1024 -max_len=65536 \
	        -print_final_stats=1 tests/corpus/$$f || exit 1; done

# ---- benchmarks ----
BENCH_LIBS := $(LDLIBS) -lopenblas $(if $(HAVE_CUDA),$(CUDA_LIBS))
$(BUILD)/bench_%: bench/bench_%.c $(call objs,release) $(call cudaobjs,release)
	$(call say,LD,$@)
	$(Q)$(CC) $(C11) $(CPPFLAGS) $(WITH_CUDA) $(RELEASE) -pie -o $@ $^ $(BENCH_LIBS)
bench: deps
	$(Q)data/install.sh bench
	$(Q)$(MAKE) $(J) --no-print-directory $(BUILD)/bench_step $(BUILD)/bench_ops $(BUILD)/vae
	$(Q)BUILD=$(BUILD) bench/run.sh

# ---- published figures: make reproduce PRESET=burda-paper-k1 [DATA=...] [STAGES=5] [SEED=1]
# [DEVICE=cpu] [THREADS=1]; goes on with a run that was interrupted ----
.PHONY: reproduce
reproduce: all
	$(Q)bench/reproduce/run.py $(or $(PRESET),$(error PRESET= one of $(patsubst bench/reproduce/%.json,%,\
	    $(filter-out %/figures.json,$(wildcard bench/reproduce/*.json))))) --vae $(BUILD)/vae \
	    $(if $(DATA),--data $(DATA)) $(if $(STAGES),--stages $(STAGES)) $(if $(SEED),--seed $(SEED)) \
	    $(if $(DEVICE),--device $(DEVICE)) $(if $(THREADS),--threads $(THREADS))

# ---- a real GPU: the case tables, parity, sanitizers, timing ----
GPU_TESTS := test_ops test_ops_loss test_ops_classes test_model test_gradients
GPU_PROGRAMS := $(GPU_TESTS:%=$(BUILD)/gpu/%) $(BUILD)/gpu/vae $(BUILD)/gpu/bench_step $(BUILD)/gpu/bench_ops
ORIGIN   := -Wl,-rpath,'$$ORIGIN/lib'
$(BUILD)/gpu/%.o: tests/%.c $(HEADERS) $(wildcard tests/*.h) Makefile
	$(call say,CC,$< (gpu))
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(C11) $(CPPFLAGS) -Itests $(RELEASE) -c -o $@ $<
$(GPU_TESTS:%=$(BUILD)/gpu/%): $(BUILD)/gpu/%: $(BUILD)/gpu/%.o \
    $(TEST_HELP:$(BUILD)/asan/tests/%=$(BUILD)/gpu/%) $(call objs,release) $(call cudaobjs,release)
	$(call say,LD,$@)
	$(Q)$(CC) -fopenmp -pie $(ORIGIN) -o $@ $^ -lcmocka $(LDLIBS) $(CUDA_LIBS)
$(BUILD)/gpu/vae: $(call objs,release) $(call front,release) $(call cudaobjs,release)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) -fopenmp -pie $(ORIGIN) -o $@ $^ $(LDLIBS) $(CUDA_LIBS)
$(BUILD)/gpu/bench_%: bench/bench_%.c $(call objs,release) $(call cudaobjs,release)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(C11) $(CPPFLAGS) $(WITH_CUDA) $(RELEASE) -pie $(ORIGIN) -o $@ $^ $(BENCH_LIBS)
gpu-programs: test-deps
	$(if $(HAVE_CUDA),,$(error a GPU build needs nvcc, on PATH or as NVCC=))
	$(Q)data/install.sh bench
	$(Q)$(MAKE) $(J) --no-print-directory $(GPU_PROGRAMS)
check-gpu: gpu-programs
	$(Q)BIN=$(BUILD)/gpu BENCH=bench tests/check_gpu.sh

# A folder to copy to a bare GPU node. BUNDLE_CUBLAS=1 adds cuBLASLt (some 500 MB), for nodes that
# have neither the toolkit nor a Python package that brings it.
BUNDLE_CUBLAS ?= 0
bundle: gpu-programs
	$(Q)rm -rf $(BUILD)/bundle && mkdir -p $(BUILD)/bundle/lib $(BUILD)/bundle/bench
	$(Q)for p in $(GPU_PROGRAMS); do strip -o $(BUILD)/bundle/$$(basename $$p) $$p; done
	$(Q)cp tests/check_gpu.sh $(BUILD)/bundle/
	$(Q)cp -r bench/bench_gpu.sh bench/peers bench/roofline.py $(BUILD)/bundle/bench/
	$(Q)ldd $(GPU_PROGRAMS) | awk '$$2 == "=>" {print $$3}' | sort -u | \
	    grep -vE '/(libc|libm|libdl|librt|libpthread|ld-linux[^/]*)\.so' | \
	    xargs -I{} cp -L {} $(BUILD)/bundle/lib/
	$(Q)$(if $(filter 1,$(BUNDLE_CUBLAS)),cp -L $(CUDA_HOME)/lib64/libcublasLt.so.13 \
	    $(CUDA_HOME)/lib64/libcublas.so.13 $(BUILD)/bundle/lib/)
	$(Q)tar -C $(BUILD) -czf $(BUILD)/bundle.tar.gz bundle
	@du -sh $(BUILD)/bundle $(BUILD)/bundle.tar.gz; echo "unpack it on the node and run ./check_gpu.sh there"

clean:
	rm -rf $(BUILD)
