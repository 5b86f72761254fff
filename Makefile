# vae: `make run` and `make test` are the two commands, `make help` lists the others; README.md has
# the rest. The tests' and benchmarks' rules are in tests/tests.mk and bench/bench.mk.
#
# Variables: CC, CXX, NVCC, CPPFLAGS, CFLAGS, LDFLAGS (added to the program's own), ARCH (CUDA
# targets), CUDA=0 (leave CUDA out), MPI=0 (leave MPI out), WEBP=0, TIFF=0 (leave these pictures out), MPICC, BUILD (folder, no spaces), PREFIX, LIBDIR, DESTDIR, JOBS, V=1.

BUILD   ?= build
$(if $(word 2,$(BUILD)),$(error BUILD='$(BUILD)': make knows no names with a space; the source folder may have one))
CC      := $(if $(filter default,$(origin CC)),gcc,$(CC))
CXX     := $(if $(filter default,$(origin CXX)),g++,$(CXX))
CLANG   ?= clang
CLANGXX ?= clang++
VERSION := 0.1.0
GIT     := $(shell git describe --always --dirty 2>/dev/null || echo unknown)

WARN    := -Wall -Wextra -Wformat=2 -Wconversion -Wimplicit-fallthrough -Wshadow \
           -Wstrict-prototypes -Werror=format-security
HARDEN  := -D_FORTIFY_SOURCE=2 -fstack-protector-strong -fPIC
INCLUDE := -D_GNU_SOURCE -Iinclude -Ihost -I$(BUILD)/gen
CFLAGS  ?= -O2 -g
# No fused multiply-adds but where products ask for them (host/backend/cpu/microkernels.c): every
# instruction set level gives the same bits in all loops, avx2 and avx512 in products, too. The other
# two flags let loops with sqrt and selects vectorize and change no result.
MATH    := -ffp-contract=off -fno-math-errno -fno-trapping-math
C11     := -std=c11 $(WARN) $(MATH)
LDLIBS  := -ljansson -lpng -ljpeg -lgif -lzip -lz -lcrypto -lm -lpthread

# ---- WebP and TIFF pictures: read where pkg-config knows the libraries, left out (and said so) where not ----
WEBP    ?= 1
TIFF    ?= 1
WEBP_PC := $(if $(filter-out 0,$(WEBP)),$(shell pkg-config --exists libwebp libwebpdemux 2>/dev/null && echo libwebpdemux libwebp))
TIFF_PC := $(if $(filter-out 0,$(TIFF)),$(shell pkg-config --exists 'libtiff-4 >= 4.5' 2>/dev/null && echo libtiff-4))
PICTURES_PC := $(strip $(WEBP_PC) $(TIFF_PC))
INCLUDE += $(if $(WEBP_PC),-DVAE_WITH_WEBP) $(if $(TIFF_PC),-DVAE_WITH_TIFF) \
           $(if $(PICTURES_PC),$(patsubst -I%,-isystem %,$(shell pkg-config --cflags $(PICTURES_PC))))
LDLIBS  := $(if $(PICTURES_PC),$(shell pkg-config --libs $(PICTURES_PC))) $(LDLIBS)

# ---- CUDA: built in where nvcc is, left out (and said so) where it is not ----
CUDA    ?= 1
NVCC    ?= $(firstword $(shell command -v nvcc 2>/dev/null) $(wildcard /usr/local/cuda/bin/nvcc))
CUDA_HOME ?= $(patsubst %/bin/nvcc,%,$(realpath $(NVCC)))
ARCH    ?= sm_80 sm_90a ptx_90
HAVE_CUDA := $(if $(filter-out 0,$(CUDA)),$(if $(NVCC),1))
comma   := ,
gencode  = $(if $(filter ptx_%,$1),-gencode arch=compute_$(1:ptx_%=%)$(comma)code=compute_$(1:ptx_%=%),\
             -gencode arch=compute_$(1:sm_%=%)$(comma)code=$1)
NVFLAGS := -std=c++17 -O3 -lineinfo -Iinclude -Ikernels $(foreach a,$(ARCH),$(call gencode,$(a))) \
           $(if $(filter sm_90a,$(ARCH)),-DVAE_SM90A) -Xcompiler -Wall,-Wextra,-fPIC,-fno-exceptions
CUDA_LIBS := -L$(CUDA_HOME)/lib64 -lcudart_static -ldl -lrt -lstdc++

# ---- MPI: built in where mpicc (or pkg-config's Open MPI or MPICH) is ----
MPI     ?= 1
MPICC   ?= $(shell command -v mpicc 2>/dev/null)
MPI_PC  := $(if $(MPICC),,$(firstword $(foreach p,ompi-c mpich,$(shell pkg-config --exists $p 2>/dev/null && echo $p))))
# what the wrapper compiles and links with, of Open MPI, MPICH and those made of it
MPI_SAYS := $(if $(filter-out 0,$(MPI)),$(if $(MPICC),$(shell $(MPICC) -show 2>/dev/null),$(if $(MPI_PC),$(shell pkg-config --cflags --libs $(MPI_PC)))))
MPI_CFLAGS := $(patsubst -I%,-isystem %,$(filter -I% -D%,$(MPI_SAYS)))
MPI_LIBS := $(filter -L% -l%,$(MPI_SAYS)) $(patsubst -L%,-Wl$(comma)-rpath$(comma)%,$(filter -L/opt/% -L/home/%,$(MPI_SAYS)))
HAVE_MPI := $(if $(filter -l%,$(MPI_SAYS)),1)

# ---- sources: the rooms of host/ (host/README.md) ----
HOST_C  := $(filter-out $(if $(WEBP_PC),,host/image/webp.c) $(if $(TIFF_PC),,host/image/tiff.c),\
             $(wildcard host/*/*.c host/*/*/*.c))
CUDA_C  := $(wildcard host/backend/cuda/*.c)
# the program's own: libvae has neither commands nor MPI
MPI_C   := host/ranks/mpi.c
FRONT   := $(wildcard host/cli/*.c) host/ranks/launch.c $(if $(HAVE_MPI),$(MPI_C))
ISA_C   := host/backend/cpu/kernels.c
CORE    := $(filter-out $(CUDA_C) $(FRONT) $(ISA_C) $(MPI_C),$(HOST_C))
CU      := $(wildcard kernels/*.cu)
ISAS    := baseline $(if $(filter x86_64,$(shell uname -m)),avx2 avx512)
MARCH_baseline :=
MARCH_avx2     := -march=x86-64-v3
MARCH_avx512   := -march=x86-64-v4 -mprefer-vector-width=512
REPORT_PAGE := $(BUILD)/gen/report_page.h

# objs VARIANT: the core objects (all but the CUDA backend and the commands); front, cudaobjs alike
objs     = $(CORE:%.c=$(BUILD)/$1/%.o) $(ISAS:%=$(BUILD)/$1/host/backend/cpu/kernels_%.o)
front    = $(FRONT:%.c=$(BUILD)/$1/%.o)
cudaobjs = $(CUDA_C:%.c=$(BUILD)/$1/%.o) $(CU:%.cu=$(BUILD)/$1/%.cu.o)
# what a program of the release variant links
program  = $(call objs,release) $(if $(HAVE_CUDA),$(call cudaobjs,release))
LIBS     = $(LDFLAGS) $(LDLIBS) $(if $(HAVE_CUDA),$(CUDA_LIBS))
PIE      = $(CC) -pie -Wl,-z,relro,-z,now

JOBS    ?= $(shell nproc 2>/dev/null || echo 2)
# for a sub-make: all cores, unless this make already shares out jobs
J        = $(if $(findstring jobserver,$(MAKEFLAGS)),,-j$(JOBS))
# beside a literal $(MAKE), by which make knows that the line is one and shares out its jobs
SUB      = $(J) --no-print-directory
Q := $(if $(V),,@)
say = $(if $(V),,@printf '  %-5s %s\n' '$1' '$2')

MAKEFLAGS += --no-builtin-rules
.SUFFIXES:
.DELETE_ON_ERROR:
.SECONDARY:
.PHONY: all run help deps lib install uninstall deb mnist clean FORCE

all: deps ## the program, build/vae
	$(Q)$(MAKE) $(SUB) $(BUILD)/vae

run: all ## train on built-in digits; pictures and a report in runs/first/
	$(Q)$(BUILD)/vae train --data digits --out runs/first --force

help: ## this list
	@sed -n 's/^\([a-z-]*\):[^=#]*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | \
	    awk -F'|' '{printf "%-20s %s\n", $$1, $$2}'

# ---- what it needs: installed when missing (Debian and its kin), named otherwise ----
deps:
	$(Q)WEBP=$(WEBP) TIFF=$(TIFF) data/install.sh build

mnist: ## fetch MNIST into data/mnist/
	$(Q)data/fetch_mnist.sh

clean: ## remove what was built
	rm -rf $(BUILD)

mpi      = $(if $(HAVE_MPI),-DVAE_WITH_MPI $(MPI_CFLAGS))

# ---- one way to compile, in variants ----
# A variant is a folder of objects. It says how it compiles: cc.V for C, cxx.V for C++, cu.V for
# kernels, isa.V is added for the CPU's products and loops, of which there is one object a level.
# Headers are followed by the compiler (-MMD); a change of flags makes a variant's objects anew.
DEPS := -MMD -MP
define variant
$(BUILD)/$1/flags: FORCE
	$$(Q)mkdir -p $$(@D) && echo '$$(cc.$1) | $$(cxx.$1) | $$(cu.$1) | $$(isa.$1)' | cmp -s - $$@ || \
	    echo '$$(cc.$1) | $$(cxx.$1) | $$(cu.$1) | $$(isa.$1)' >$$@
$(BUILD)/$1/host/backend/cpu/kernels_%.o: $(ISA_C) $(BUILD)/$1/flags
	$$(call say,CC,$$< ($1$$(comma) $$*))
	$$(Q)mkdir -p $$(@D) && $$(cc.$1) $$(isa.$1) $$(MARCH_$$*) -DVAE_ISA=$$* $(DEPS) -c -o $$@ $$<
$(BUILD)/$1/host/base/version.o: host/base/version.c $(BUILD)/gen/version $(BUILD)/$1/flags
	$$(call say,CC,$$< ($1))
	$$(Q)mkdir -p $$(@D) && $$(cc.$1) -DVAE_VERSION='"$(VERSION)"' -DVAE_GIT='"$(GIT)"' $(DEPS) -c -o $$@ $$<
$(BUILD)/$1/%.o: %.c $(BUILD)/$1/flags | $(REPORT_PAGE)
	$$(call say,CC,$$< ($1))
	$$(Q)mkdir -p $$(@D) && $$(cc.$1) $(DEPS) -c -o $$@ $$<
$(BUILD)/$1/%.o: %.cc $(BUILD)/$1/flags
	$$(call say,CXX,$$< ($1))
	$$(Q)mkdir -p $$(@D) && $$(cxx.$1) $(DEPS) -c -o $$@ $$<
$(BUILD)/$1/%.cu.o: %.cu $(BUILD)/$1/flags
	$$(call say,CU,$$< ($1))
	$$(Q)mkdir -p $$(@D) && $$(cu.$1) $(DEPS) -c -o $$@ $$<
endef

cc.release  = $(CC) $(C11) $(HARDEN) $(INCLUDE) $(if $(HAVE_CUDA),-DVAE_WITH_CUDA -isystem $(CUDA_HOME)/include) \
              $(mpi) -Itests/support $(CPPFLAGS) $(CFLAGS)
cxx.release =
cu.release  = $(NVCC) $(NVFLAGS)
isa.release = -O3
$(eval $(call variant,release))

# The commit is compiled into one object.
$(BUILD)/gen/version: FORCE
	$(Q)mkdir -p $(@D) && echo '$(VERSION) $(GIT)' | cmp -s - $@ || echo '$(VERSION) $(GIT)' >$@

# The report's style and script are files of their own; the program has them as C strings.
$(REPORT_PAGE): host/report/page.css host/report/page.js
	$(Q)mkdir -p $(@D)
	$(Q)for kind in css js; do echo "static const char report_$$kind[] ="; \
	    sed -e 's/\\/\\\\/g' -e 's/"/\\"/g' -e 's/.*/    "&\\n"/' host/report/page.$$kind; echo '    ;'; done >$@

# ---- the program ----
ifneq ($(HAVE_CUDA),1)
$(BUILD)/vae: | cuda-left-out
.PHONY: cuda-left-out
cuda-left-out:
	@echo '  note  built without CUDA: $(if $(filter 0,$(CUDA)),CUDA=0 was given,no nvcc on PATH or in /usr/local/cuda/bin)'
endif
ifneq ($(words $(WEBP_PC) $(TIFF_PC)),3)
$(BUILD)/vae: | pictures-said
.PHONY: pictures-said
pictures-said:
	$(if $(WEBP_PC),,@echo '  note  built without WebP pictures: $(if $(filter 0,$(WEBP)),WEBP=0 was given,no libwebp and libwebpdemux that pkg-config knows)')
	$(if $(TIFF_PC),,@echo '  note  built without TIFF pictures: $(if $(filter 0,$(TIFF)),TIFF=0 was given,no libtiff of 4.5 or later that pkg-config knows)')
endif
$(BUILD)/vae: | mpi-said
.PHONY: mpi-said
mpi-said:
	@echo '  note  $(if $(HAVE_MPI),MPI: $(if $(MPICC),$(MPICC),$(MPI_PC), by pkg-config),built without MPI: $(if $(filter 0,$(MPI)),MPI=0 was given,no mpicc on PATH and no package of it))'
$(BUILD)/vae: $(program) $(call front,release)
	$(call say,LD,$@)
	$(Q)$(PIE) -o $@ $^ $(LIBS) $(MPI_LIBS)

# ---- libvae: position-independent objects; vae.h has its names and its number ----
SOVERSION := $(shell sed -n 's/^.define VAE_API_VERSION //p' include/vae.h)
PREFIX    ?= /usr/local
LIBDIR    ?= $(PREFIX)/lib
# the Python module goes where python3 looks below PREFIX, else to a folder for PYTHONPATH
PYTHONDIR ?= $(or $(shell python3 -c 'import sys; print(next((p for p in sys.path if \
    p.startswith(sys.argv[1] + "/") and p.endswith("-packages")), ""))' '$(PREFIX)' 2>/dev/null),$(LIBDIR)/python)
LIBSO     := $(BUILD)/lib/libvae.so.$(VERSION)
LIB_NAMES := $(BUILD)/gen/libvae.names
# A declaration begins its line and has the name on it.
$(LIB_NAMES): include/vae.h
	$(Q)mkdir -p $(@D) && sed -n '/^typedef/d; s/^[a-z][a-z ]*[ *]\(vae_[a-z_]*\)(.*/\1/p' $< >$@
$(LIBSO): $(program) $(LIB_NAMES)
	$(call say,LD,$@)
	$(Q)mkdir -p $(@D)
	$(Q)(echo 'LIBVAE_$(SOVERSION) { global:'; sed 's/$$/;/' $(LIB_NAMES); echo 'local: *; };') >$(@D)/libvae.map
	$(Q)$(CC) -shared -Wl,-soname,libvae.so.$(SOVERSION) -Wl,--version-script=$(@D)/libvae.map \
	    -Wl,-z,relro,-z,now,-z,defs,-z,nodelete -o $@ $(filter %.o,$^) $(LIBS)
	$(Q)ln -sf $(@F) $(@D)/libvae.so.$(SOVERSION)
	$(Q)ln -sf libvae.so.$(SOVERSION) $(@D)/libvae.so
# One object in which only the public names are global.
$(BUILD)/lib/libvae.a: $(program) $(LIB_NAMES)
	$(call say,AR,$@)
	$(Q)mkdir -p $(@D)
	$(Q)$(LD) -r -o $(@D)/libvae.o $(filter %.o,$^)
	$(Q)objcopy --keep-global-symbols=$(LIB_NAMES) $(@D)/libvae.o
	$(Q)rm -f $@ && $(AR) rcs $@ $(@D)/libvae.o
lib: $(LIBSO) $(BUILD)/lib/libvae.a ## libvae, shared and static

# where things go: the quotes keep a path with spaces whole
BIN_TO := $(DESTDIR)$(PREFIX)/bin
INC_TO := $(DESTDIR)$(PREFIX)/include
LIB_TO := $(DESTDIR)$(LIBDIR)
PY_TO   = $(DESTDIR)$(PYTHONDIR)
MAN_TO := $(DESTDIR)$(PREFIX)/share/man/man1
BASH_TO := $(DESTDIR)$(PREFIX)/share/bash-completion/completions
COMMANDS = $(shell sed -n 's/^    X(\([a-z]*\)).*/\1/p' host/cli/cli.c)
install: deps ## program, library, Python module, man pages into PREFIX (DESTDIR, LIBDIR, PYTHONDIR)
	$(Q)$(MAKE) $(SUB) $(BUILD)/vae lib
	$(Q)install -d "$(BIN_TO)" "$(INC_TO)" "$(LIB_TO)/pkgconfig" "$(PY_TO)" \
	    "$(MAN_TO)" "$(BASH_TO)"
	$(Q)install -m 755 $(BUILD)/vae "$(BIN_TO)/vae"
	$(Q)install -m 644 include/vae.h "$(INC_TO)/vae.h"
	$(Q)install -m 755 $(LIBSO) "$(LIB_TO)/"
	$(Q)install -m 644 $(BUILD)/lib/libvae.a "$(LIB_TO)/"
	$(Q)ln -sf libvae.so.$(VERSION) "$(LIB_TO)/libvae.so.$(SOVERSION)"
	$(Q)ln -sf libvae.so.$(SOVERSION) "$(LIB_TO)/libvae.so"
	$(Q)sed -e 's|@PREFIX@|$(PREFIX)|; s|@LIBDIR@|$(subst $(PREFIX)/,$${prefix}/,$(LIBDIR))|; s|@VERSION@|$(VERSION)|' \
	    -e 's|@LDLIBS@|$(LDLIBS) $(if $(HAVE_CUDA),$(CUDA_LIBS))|' host/lib/libvae.pc.in \
	    >"$(LIB_TO)/pkgconfig/libvae.pc"
	$(Q)sed -e 's|@LIBDIR@|$(LIBDIR)|; s|^_NAME = .*|_NAME = "libvae.so.$(SOVERSION)"|' host/lib/vae.py >"$(PY_TO)/vae.py"
	$(Q)$(BUILD)/vae help --man >"$(MAN_TO)/vae.1"
	$(Q)for c in $(COMMANDS); do $(BUILD)/vae help --man $$c >"$(MAN_TO)/vae-$$c.1" || exit 1; done
	$(Q)$(BUILD)/vae help --completion >"$(BASH_TO)/vae"
	$(Q)echo '  python module: $(PYTHONDIR)/vae.py'
uninstall: ## what install put there
	rm -f "$(BIN_TO)/vae" "$(INC_TO)/vae.h" "$(LIB_TO)/libvae.a" "$(LIB_TO)/pkgconfig/libvae.pc" \
	    "$(LIB_TO)/libvae.so" "$(LIB_TO)/libvae.so.$(SOVERSION)" "$(LIB_TO)/libvae.so.$(VERSION)" \
	    "$(PY_TO)/vae.py" "$(PY_TO)"/__pycache__/vae.*.pyc "$(BASH_TO)/vae" "$(MAN_TO)/vae.1"
	for c in $(COMMANDS); do rm -f "$(MAN_TO)/vae-$$c.1"; done

deb: deps ## a Debian package of what install installs, build/vae_VERSION_ARCH.deb
	$(Q)$(MAKE) $(SUB) $(BUILD)/vae lib
	$(Q)BUILD=$(BUILD) VERSION=$(VERSION) SOVERSION=$(SOVERSION) MAKE="$(MAKE)" data/deb.sh

include tests/tests.mk bench/bench.mk
-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
