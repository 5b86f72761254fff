# Tests, fuzzing, lint, and what runs on a GPU node. Included by the Makefile.

.PHONY: test check readers test-deps test-programs roundtrip coverage lint fuzz gpu-programs check-gpu bundle faults mutants

test: test-deps ## the whole suite: no GPU, no data needed
	$(Q)$(MAKE) $(SUB) check

test-deps:
	$(Q)WEBP=$(WEBP) TIFF=$(TIFF) data/install.sh build test

check:
	$(Q)$(MAKE) $(SUB) readers test-programs $(BUILD)/vae lib $(FAULTY) $(BUILD)/roundtrip/random_model $(FUZZERS:%=$(BUILD)/fuzz/%)
	$(Q)BUILD=$(BUILD) TEST_PROGRAMS="$(TEST_PROGRAMS)" tests/run.py
# while the rest is built; where they cannot be had, the round trips say so
readers:
	$(Q)BUILD=$(BUILD) tests/roundtrip/readers.sh >/dev/null || true

# ---- everything under AddressSanitizer and UBSan ----
# debugging information is for people: mutants go without, and take a fast linker
SAN_DEBUG := -g
SAN     := -O1 $(SAN_DEBUG) -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all
SIMT_INC := -Itests/simt/include -Itests/simt
# cuRAND's headers, where the toolkit is: kernels are emulated over them, or else over a stand-in
CURAND   := $(if $(HAVE_CUDA),$(wildcard $(CUDA_HOME)/include/curand_kernel.h))
SIMT_CURAND := $(if $(CURAND),-DSIMT_CURAND -idirafter $(CUDA_HOME)/include)
cc.asan  = $(CC) $(C11) $(INCLUDE) $(mpi) -Itests/support $(SAN)
cxx.asan =
cu.asan  =
isa.asan = -O2
$(eval $(call variant,asan))

# the reference in double has no other memory than what it is given and arrays of a size that it checks
$(BUILD)/asan/tests/support/reference.o: SAN := -O2 $(SAN_DEBUG)
# but those that another rule builds, or that need CUDA, emulated or not
UNIT    := $(filter-out tests/unit/test_curand.c tests/unit/test_whole.c tests/unit/test_twins.c,$(wildcard tests/unit/test_*.c))
SUPPORT := $(wildcard tests/support/*.c)
support  = $(SUPPORT:%.c=$(BUILD)/$1/%.o)
TEST_BINS := $(UNIT:tests/unit/%.c=$(BUILD)/test/%)
$(TEST_BINS): $(BUILD)/test/%: $(BUILD)/asan/tests/unit/%.o $(call support,asan) $(call objs,asan)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(SAN) -o $@ $^ -lcmocka $(LDLIBS)
$(BUILD)/test/vae: $(call objs,asan) $(call front,asan)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(SAN) -o $@ $^ $(LDLIBS) $(MPI_LIBS)
TEST_PROGRAMS += $(TEST_BINS) $(BUILD)/test/vae

# the products of the program itself: its kernels say their instructions, which AddressSanitizer does
# not look into, so that its build has others (host/backend/cpu/vec4.h)
RELEASED := $(BUILD)/test/test_matmul_released $(BUILD)/test/test_sparse_released
$(RELEASED): $(BUILD)/test/%_released: tests/unit/%.c $(SUPPORT) $(program)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(C11) $(INCLUDE) -Itests/support $(CFLAGS) -o $@ $(filter %.c %.o,$^) -lcmocka $(LIBS)
TEST_PROGRAMS += $(RELEASED)

# of ranks: MPI calls that can be made to fail
$(BUILD)/test/fail_mpi.so: tests/mpi/fail_mpi.c
	$(call say,CC,$<)
	$(Q)mkdir -p $(@D) && $(CC) -std=c11 $(WARN) $(MPI_CFLAGS) -O1 -fPIC -shared -o $@ $< $(MPI_LIBS)
TEST_PROGRAMS += $(if $(HAVE_MPI),$(BUILD)/test/fail_mpi.so)
# a program that was built without what can be left out: MPI, WebP, TIFF
$(BUILD)/test/%_alone.o: $(BUILD)/asan/flags
	$(Q)mkdir -p $(@D) && $(CC) $(C11) $(INCLUDE) -UVAE_WITH_WEBP -UVAE_WITH_TIFF $(SAN) $(DEPS) -c -o $@ $(filter %.c,$^)
$(BUILD)/test/launch_alone.o: host/ranks/launch.c
$(BUILD)/test/picture_alone.o: host/image/picture.c
$(BUILD)/test/vae_alone: $(filter-out %/image/picture.o %/image/webp.o %/image/tiff.o,$(call objs,asan)) \
    $(filter-out %/ranks/launch.o %/ranks/mpi.o,$(call front,asan)) $(BUILD)/test/launch_alone.o $(BUILD)/test/picture_alone.o
	$(call say,LD,$@)
	$(Q)$(CC) $(SAN) -o $@ $^ $(LDLIBS)
TEST_PROGRAMS += $(BUILD)/test/vae_alone

# cuRAND's own words, where the toolkit is: its host generator needs no GPU. curand_device.cc is
# compiled over cuRAND's headers, and over the stand-in
ifneq ($(CURAND),)
cc.curand  = $(cc.asan) -isystem $(CUDA_HOME)/include
cxx.curand = $(CXX) -std=c++17 $(MATH) $(SAN) $(INCLUDE) -isystem $(CUDA_HOME)/include
cu.curand  =
isa.curand =
$(eval $(call variant,curand))
$(BUILD)/test/test_curand: $(BUILD)/curand/tests/unit/test_curand.o $(BUILD)/curand/tests/unit/curand_device.o \
    $(BUILD)/simt/tests/unit/curand_device.o $(call support,asan) $(call objs,asan)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CC) $(SAN) -o $@ $^ -L$(CUDA_HOME)/lib64 -Wl,-rpath,$(CUDA_HOME)/lib64 -lcurand -lcmocka \
	    -lstdc++ $(LDLIBS)
TEST_PROGRAMS += $(BUILD)/test/test_curand
endif

# ---- the campaign of faults: a library that is preloaded, and a program over libvae ----
cc.faults  = $(CC) -std=gnu11 -D_GNU_SOURCE -O2 -g $(WARN) -Iinclude
SHIM      := $(BUILD)/faults/shim.so
FAULTY    := $(SHIM) $(BUILD)/faults/library $(BUILD)/faults/library-asan
$(SHIM): tests/faults/shim.c
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D) && $(cc.faults) -fPIC -ftls-model=initial-exec -shared -fvisibility=hidden -o $@ $< -ldl -lpthread
$(BUILD)/faults/library: tests/faults/library.c include/vae.h $(program)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D) && $(cc.faults) -o $@ $(filter %.c %.o,$^) $(LIBS)
$(BUILD)/faults/library-asan: tests/faults/library.c include/vae.h $(call objs,asan)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D) && $(cc.faults) $(SAN) -o $@ $(filter %.c %.o,$^) $(LDLIBS)
faults: test-deps ## kills, failing calls and allocations, full disks, wrong files: the long campaign
	$(Q)$(MAKE) $(SUB) $(BUILD)/vae $(BUILD)/test/vae $(BUILD)/simt/vae $(FAULTY)
	$(Q)BUILD=$(BUILD) JOBS=$(JOBS) tests/faults/run --long

# ---- round trips with readers from the registry ----
$(BUILD)/roundtrip/random_model: $(BUILD)/release/tests/roundtrip/random_model.o $(program)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(PIE) -o $@ $^ $(LIBS)
roundtrip: deps ## NumPy, safetensors, onnx and ONNX Runtime read what is exported
	$(Q)$(MAKE) $(SUB) $(BUILD)/vae $(BUILD)/roundtrip/random_model lib
	$(Q)BUILD=$(BUILD) tests/roundtrip/run.sh
	$(Q)BUILD=$(BUILD) tests/roundtrip/installed.sh

# ---- the CUDA backend on the host: kernels and backend/cuda over tests/simt ----
# What does not see CUDA is the asan variant's.
cc.simt  = $(CC) $(C11) $(INCLUDE) -DVAE_WITH_CUDA $(SIMT_INC) $(SAN)
cxx.simt = $(CXX) -std=c++17 $(MATH) $(SIMT_SAN) -Wall -Wextra $(SIMT_INC) -Iinclude
# what moves from thread to thread of a kernel is plain code: it would be half of the time
SIMT_SAN := $(SAN) -O2
$(BUILD)/simt/tests/simt/simt_sched.o $(BUILD)/simt/tests/simt/simt_warp.o: SIMT_SAN := -O3 $(SAN_DEBUG) -fno-omit-frame-pointer -DSIMT_ASAN
cu.simt  = $(CXX) -std=c++17 -x c++ $(SAN) -Wall -Wextra $(MATH) $(SIMT_INC) $(SIMT_CURAND) -Iinclude \
           -Ikernels
isa.simt =
$(eval $(call variant,simt))
SIMT_CC    := $(wildcard tests/simt/simt_*.cc)
SIMT_OWN   := $(wildcard tests/simt/test_*.cc)
SIMT_TESTS := test_ops test_ops_loss test_ops_conv test_ops_classes test_model test_gradients test_mapped test_whole test_twins test_score
simt_cc     = $(SIMT_CC:%.cc=$(BUILD)/$1/%.o)
simt_parts  = $(filter-out %/backend/open.o,$(call objs,asan)) $(BUILD)/simt/host/backend/open.o \
              $(call cudaobjs,simt) $(call simt_cc,simt)
$(SIMT_TESTS:%=$(BUILD)/simt/%): $(BUILD)/simt/%: $(BUILD)/asan/tests/unit/%.o $(call support,asan) $(simt_parts)
	$(call say,LD,$@)
	$(Q)$(CXX) $(SAN) -o $@ $^ -lcmocka $(LDLIBS)
$(BUILD)/simt/vae: $(simt_parts) $(call front,asan)
	$(call say,LD,$@)
	$(Q)$(CXX) $(SAN) -o $@ $^ $(LDLIBS) $(MPI_LIBS)
# the emulation's own tests: bugs planted in kernels and host code, each of which it must catch
$(BUILD)/simt/test_simt: $(SIMT_OWN:%.cc=$(BUILD)/simt/%.o) $(call simt_cc,simt) tests/simt/test_constants.c \
    tests/simt/test_nccl.c
	$(call say,LD,$@)
	$(Q)$(CC) -std=c11 -fsyntax-only -Itests/simt/include tests/simt/test_constants.c
	$(Q)$(CC) -std=c11 -fsyntax-only -DOWN -Ihost -Itests/simt/include tests/simt/test_nccl.c
	$(Q)$(if $(HAVE_CUDA),$(CC) -std=c11 -fsyntax-only -I$(CUDA_HOME)/include tests/simt/test_constants.c)
	$(Q)$(if $(HAVE_CUDA),$(CC) -std=c11 -fsyntax-only -I$(CUDA_HOME)/include tests/simt/test_nccl.c)
	$(Q)$(CXX) $(SAN) -o $@ $(filter %.o,$^) -lpthread
TEST_PROGRAMS += $(SIMT_TESTS:%=$(BUILD)/simt/%) $(BUILD)/simt/vae $(BUILD)/simt/test_simt

coverage: test-deps ## which lines of the CUDA parts the emulated tests run
	$(Q)mkdir -p $(BUILD)
	$(Q)BUILD=$(BUILD) tests/simt/coverage.sh

# ThreadSanitizer, by clang, for races between CUDA threads and between the pool's. The emulation
# itself is not instrumented (it tells the sanitizer what orders what), nor are the CPU's products.
SANITIZE := -fsanitize=thread
$(BUILD)/tsan/tests/simt/simt_%.o: SANITIZE := -O2
$(BUILD)/tsan/host/backend/cpu/kernels_%.o: SANITIZE :=
TSAN     := -O1 -g -fno-omit-frame-pointer -DSIMT_TSAN
cc.tsan   = $(CLANG) -std=gnu11 $(MATH) $(INCLUDE) -DVAE_WITH_CUDA $(SIMT_INC) -Ikernels \
            -Itests/support $(TSAN) $(SANITIZE)
cxx.tsan  = $(CLANGXX) -std=c++17 $(SIMT_INC) -Iinclude $(TSAN) $(SANITIZE)
cu.tsan   = $(CLANGXX) -std=c++17 -x c++ $(MATH) $(SIMT_INC) $(SIMT_CURAND) -Iinclude -Ikernels $(TSAN) \
            $(SANITIZE)
isa.tsan  = -O2
$(eval $(call variant,tsan))
$(BUILD)/simt/test_%_tsan: $(BUILD)/tsan/tests/unit/test_%.o $(call support,tsan) $(call objs,tsan) \
    $(call cudaobjs,tsan) $(call simt_cc,tsan)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANGXX) -fsanitize=thread -o $@ $^ -lcmocka $(LDLIBS) -ldl
$(BUILD)/simt/test_simt_tsan: $(SIMT_OWN:%.cc=$(BUILD)/tsan/%.o) $(call simt_cc,tsan)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(CLANGXX) -fsanitize=thread -o $@ $^ -lpthread
TEST_PROGRAMS += $(BUILD)/simt/test_model_tsan $(BUILD)/simt/test_whole_tsan $(BUILD)/simt/test_simt_tsan \
                 $(BUILD)/simt/test_pool_tsan

test-programs: $(TEST_PROGRAMS)

# ---- style and static checks ----
lint: deps ## style, static checks, the house's rules
	$(Q)data/install.sh test lint
	$(Q)$(MAKE) $(SUB) $(BUILD)/vae
	$(Q)clang-format --dry-run -Werror $(HOST_C) $(wildcard host/*/*.h host/*/*/*.h include/*.h kernels/*.cu \
	    kernels/*.h tests/*/*.[ch] tests/simt/*.cc tests/simt/include/*.h bench/*.c)
	$(Q)for f in $(filter-out $(CUDA_C) $(if $(HAVE_MPI),,$(MPI_C)),$(HOST_C)) bench/bench_step.c \
	    bench/bench_ops.c; do $(CC) $(C11) $(INCLUDE) $(mpi) -DVAE_ISA=baseline -DVAE_VERSION='""' -DVAE_GIT='""' -Werror -fsyntax-only $$f || exit 1; done
	$(Q)cppcheck --quiet --std=c11 --enable=warning,portability --error-exitcode=1 --inline-suppr \
	    --suppress=missingIncludeSystem --suppress=normalCheckLevelMaxBranches -D_GNU_SOURCE \
	    -DVAE_ISA=baseline -DVAE_VERSION='""' -DVAE_GIT='""' -Iinclude -Ihost host
	$(Q)tests/lint.sh

# ---- fuzzing: FUZZ_SECONDS for each target; what it finds is kept in build/fuzz ----
FUZZ_SECONDS ?= 60
FUZZERS := $(patsubst tests/fuzz/%.c,%,$(wildcard tests/fuzz/fuzz_*.c))
# Coverage is watched where bytes are read: arithmetic would only fill the corpus and take the time.
# Names of options come from the corpus, not from comparisons.
COVER    := -fsanitize=fuzzer-no-link
$(foreach room,backend model stats eval report,$(BUILD)/fuzz/host/$(room)/%.o): COVER :=
$(BUILD)/fuzz/host/report/run.o: COVER := -fsanitize=fuzzer-no-link
$(BUILD)/fuzz/host/config/config.o: COVER := -fsanitize=fuzzer-no-link -fno-sanitize-coverage=trace-cmp
cc.fuzz  = $(CLANG) -std=gnu11 $(INCLUDE) -g -O1 $(COVER) -fsanitize=address,undefined \
           -fno-sanitize-recover=all -Wno-format-zero-length
cxx.fuzz =
cu.fuzz  =
isa.fuzz =
$(eval $(call variant,fuzz))
# an archive, of which the linker takes what a fuzzer needs; main.c is libFuzzer's
FUZZ_SHARED := $(filter-out tests/fuzz/fuzz_%,$(wildcard tests/fuzz/*.c))
$(BUILD)/fuzz/libvae.a: $(call objs,fuzz) $(filter-out %/main.o %/mpi.o,$(call front,fuzz)) $(FUZZ_SHARED:%.c=$(BUILD)/fuzz/%.o)
	$(call say,AR,$@)
	$(Q)rm -f $@ && $(AR) rcs $@ $^
$(FUZZERS:%=$(BUILD)/fuzz/%): $(BUILD)/fuzz/%: $(BUILD)/fuzz/tests/fuzz/%.o $(BUILD)/fuzz/libvae.a
	$(call say,LD,$@)
	$(Q)$(cc.fuzz) -fsanitize=fuzzer -o $@ $^ $(LDLIBS)
fuzz: deps ## FUZZ_SECONDS (60) of each parser on inputs that nobody thought of
	$(Q)data/install.sh fuzz
	$(Q)$(MAKE) $(SUB) $(FUZZERS:%=$(BUILD)/fuzz/%)
	$(Q)BUILD=$(BUILD) FUZZ_SECONDS=$(FUZZ_SECONDS) tests/fuzz/run.sh

# ---- mutants: which faults do the tests catch? ----
mutants: test-deps ## MUTANTS (200) planted faults: how many do the tests catch? Hours; goes on where it stopped
	$(Q)data/install.sh fuzz
	$(Q)BUILD=$(BUILD) tests/mutants/run.py

# ---- a real GPU: the case tables, parity, sanitizers, timing ----
GPU_TESTS := test_ops test_ops_loss test_ops_conv test_ops_classes test_model test_gradients test_whole test_twins
GPU_PROGRAMS := $(GPU_TESTS:%=$(BUILD)/gpu/%) $(BUILD)/gpu/vae $(BUILD)/gpu/bench_step $(BUILD)/gpu/bench_ops
# DT_RPATH, not DT_RUNPATH: it serves the needs of needed libraries too (libopenblas -> libgfortran)
GPU_LINK  = $(PIE) -Wl,--disable-new-dtags,-rpath,'$$ORIGIN/lib'
$(GPU_TESTS:%=$(BUILD)/gpu/%): $(BUILD)/gpu/%: $(BUILD)/release/tests/unit/%.o $(call support,release) $(program)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(GPU_LINK) -o $@ $^ -lcmocka $(LIBS)
$(BUILD)/gpu/vae: $(program) $(call front,release)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(GPU_LINK) -o $@ $^ $(LIBS) $(MPI_LIBS)
$(BUILD)/gpu/bench_%: $(BUILD)/release/bench/bench_%.o $(program)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(GPU_LINK) -o $@ $^ $(LIBS) -lopenblas
gpu-programs: test-deps
	$(if $(HAVE_CUDA),,$(error a GPU build needs nvcc, on PATH or as NVCC=))
	$(Q)data/install.sh bench
	$(Q)$(MAKE) $(SUB) $(GPU_PROGRAMS)
check-gpu: gpu-programs ## on a machine with a GPU: correctness, then speed
	$(Q)BIN=$(BUILD)/gpu BENCH=bench tests/check_gpu.sh

# A folder to copy to a bare GPU node. BUNDLE_CUBLAS=1 adds cuBLASLt (some 500 MB), for nodes that
# have neither the toolkit nor a Python package that brings it. The programs are alike but for a few
# hundred KB, which only a compressor that looks back over more than one of them sees: 14 MB, not 49.
BUNDLE_CUBLAS ?= 0
bundle: gpu-programs ## build/bundle.tar.xz, to unpack on a bare GPU node and run ./check_gpu.sh
	$(Q)rm -rf $(BUILD)/bundle && mkdir -p $(BUILD)/bundle/lib $(BUILD)/bundle/bench
	$(Q)for p in $(GPU_PROGRAMS); do strip -o $(BUILD)/bundle/$$(basename $$p) $$p; done
	$(Q)cp tests/check_gpu.sh $(BUILD)/bundle/
	$(Q)cp -r bench/peers bench/roofline.py $(BUILD)/bundle/bench/
	$(Q)ldd $(GPU_PROGRAMS) | awk '$$2 == "=>" {print $$3}' | sort -u | \
	    grep -vE '/(libc|libm|libdl|librt|libpthread|ld-linux[^/]*)\.so' | \
	    xargs -I{} cp -L {} $(BUILD)/bundle/lib/
	$(Q)$(if $(filter 1,$(BUNDLE_CUBLAS)),cp -L $(CUDA_HOME)/lib64/libcublasLt.so.13 \
	    $(CUDA_HOME)/lib64/libcublas.so.13 $(BUILD)/bundle/lib/)
	$(Q)tar -C $(BUILD) --sort=name -cf - bundle | xz --lzma2=preset=1,dict=64MiB >$(BUILD)/bundle.tar.xz
	@du -sh $(BUILD)/bundle $(BUILD)/bundle.tar.xz; echo "unpack it on the node and run ./check_gpu.sh there"
