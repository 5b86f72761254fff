# Benchmarks and published figures. Included by the Makefile.

.PHONY: bench reproduce

$(BUILD)/bench_%: $(BUILD)/release/bench/bench_%.o $(program)
	$(call say,LD,$@)
	$(Q)$(PIE) -o $@ $^ $(LIBS) -lopenblas
bench: deps ## the step's speed, beside its products and peers
	$(Q)data/install.sh bench
	$(Q)$(MAKE) $(SUB) $(BUILD)/bench_step $(BUILD)/bench_ops $(BUILD)/vae
	$(Q)BUILD=$(BUILD) bench/run.sh

# make reproduce PRESET=burda-paper-k1 [DATA=...] [STAGES=5] [SEED=1] [DEVICE=cpu] [THREADS=1]; goes
# on with a run that was interrupted
reproduce: all ## PRESET=...: a published figure
	$(Q)bench/reproduce/run.py $(or $(PRESET),$(error PRESET= one of $(patsubst bench/reproduce/%.json,%,\
	    $(filter-out %/figures.json,$(wildcard bench/reproduce/*.json))))) --vae $(BUILD)/vae \
	    $(if $(DATA),--data "$(DATA)") $(if $(STAGES),--stages $(STAGES)) $(if $(SEED),--seed $(SEED)) \
	    $(if $(DEVICE),--device $(DEVICE)) $(if $(THREADS),--threads $(THREADS))
